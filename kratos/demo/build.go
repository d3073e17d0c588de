// Package demo builds and runs the app with a real Ory Kratos, a user to sign in and a page to sign in on.
package demo

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The programs that Build makes, relative to this module's folder, where "go run" and "go test" start.
var (
	KratosBinary = filepath.Join(".bin", "kratos")
	appBinary    = filepath.Join(".bin", "ory-logout")
)

// Build builds the app, and Kratos unless KRATOS names one. It prints its progress.
func Build(ctx context.Context) error {
	if name := os.Getenv("KRATOS"); name != "" {
		path, err := findKratos(ctx, name)
		if err != nil {
			return fmt.Errorf("KRATOS must be the absolute path of an Ory Kratos, or its name in PATH: %w", err)
		}
		fmt.Println("Using the Ory Kratos at", path)
		KratosBinary = path
		return buildApp(ctx)
	}
	env, err := cgoEnv(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	app := make(chan error)
	go func() { app <- buildApp(ctx) }() // while the modules of Kratos are downloaded
	if err = buildKratos(ctx, env); err != nil {
		cancel()
	}
	return cmp.Or(err, <-app)
}

func buildApp(ctx context.Context) error {
	cmd := command(ctx, "go", "build", "-C", "..", "-o", filepath.Join("kratos", appBinary), ".")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the app: %w", err)
	}
	return nil
}

// findKratos returns the path of the Kratos that is called name.
func findKratos(ctx context.Context, name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "serve", "--help")
	// To be killed with all that it has started: it may be anything.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", err
	}
	help, _ := io.ReadAll(io.LimitReader(stdout, 1<<10))
	cmd.Cancel()
	cmd.Wait()
	if !strings.Contains(string(help), "Ory Kratos server") {
		return "", fmt.Errorf("%q does not print Kratos's help", path+" serve --help")
	}
	return path, nil
}

// cgoEnv returns the environment to build Kratos in, or an error if the C compiler does not work there.
func cgoEnv(ctx context.Context) ([]string, error) {
	out, err := command(ctx, "go", "env", "CC", "CGO_CFLAGS").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	cc, cFlags, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	env := append(os.Environ(), "CGO_ENABLED=1")
	try := command(ctx, "go", "build", "runtime/cgo")
	try.Env = env
	if err := try.Run(); err != nil {
		return nil, fmt.Errorf(`the C compiler %q does not work, as "CGO_ENABLED=1 go build runtime/cgo" shows, and Kratos's `+
			`SQLite needs one: install gcc or clang, or set CC, or set KRATOS to a Kratos that you have`, cc)
	}
	return append(env, "CGO_CFLAGS="+cFlags+" -O0 -g0"), nil
}

// buildKratos builds Kratos, or sees that it is up to date. It is built neither to be quick nor to be debugged, as
// that takes a third less of the processor's time.
func buildKratos(ctx context.Context, env []string) error {
	fmt.Println("Building Ory Kratos from source: minutes the first time, a second after that.")
	cmd := command(ctx, "go", "build", "-v", "-tags=sqlite", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w",
		"-o", KratosBinary, "github.com/ory/kratos")
	cmd.Env = env
	output, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	// A line is a module that is downloaded, a package that is compiled, or something to worry about.
	modules, packages := 0, 0
	for lines := bufio.NewScanner(output); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "go: downloading "):
			modules++
		case !strings.Contains(line, " "):
			packages++
		default:
			fmt.Fprintln(os.Stderr, line)
			continue
		}
		if (modules+packages)%100 == 0 {
			fmt.Printf("%5d modules downloaded, %4d packages compiled\n", modules, packages)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("building Kratos: %w", err)
	}
	return nil
}
