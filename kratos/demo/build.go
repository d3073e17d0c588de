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

// The programs that Build makes, relative to this module's folder, where all that uses this package must run.
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

// buildKratos builds Kratos, or sees that it is up to date.
func buildKratos(ctx context.Context, env []string) error {
	fmt.Println("Building Ory Kratos from source: minutes the first time, a second after that.")
	stale, err := goKratos(ctx, env, 0, "list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}") // what Go's cache lacks
	if err == nil {
		_, err = goKratos(ctx, env, stale, "build", "-v", "-o", KratosBinary)
	}
	if err != nil {
		return fmt.Errorf("building Kratos: %w", err)
	}
	return nil
}

// goKratos runs a command of Go's on Kratos's package, and returns how many packages it names. These it prints as progress
// towards total, if that is not 0.
func goKratos(ctx context.Context, env []string, total int, args ...string) (packages int, err error) {
	// It is built neither to be quick nor to be debugged, as that takes a third less of the processor's time.
	args = append(args, "-tags=sqlite", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w", "github.com/ory/kratos")
	cmd := command(ctx, "go", args...)
	cmd.Env = env
	output, err := cmd.StdoutPipe()
	cmd.Stderr = cmd.Stdout
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, err
	}
	// A line is a module that is downloaded, a package, or something to worry about.
	modules := 0
	for lines := bufio.NewScanner(output); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "go: downloading "):
			if modules++; modules%100 == 0 {
				fmt.Printf("%4d modules downloaded\n", modules)
			}
		case !strings.Contains(line, " "):
			if packages++; total > 0 && (packages%100 == 0 || packages == total) {
				fmt.Printf("%4d of %d packages compiled\n", packages, total)
			}
		default:
			fmt.Fprintln(os.Stderr, line)
		}
	}
	return packages, cmd.Wait()
}
