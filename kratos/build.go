package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The programs that build makes, from this module's folder, in which "go run" and "go test" start it.
var (
	kratosBinary = filepath.Join(".bin", "kratos")
	appBinary    = filepath.Join(".bin", "ory-logout")
)

// build builds Kratos, or finds the one that KRATOS names, and the app. It prints its progress.
func build(ctx context.Context) error {
	if name := os.Getenv("KRATOS"); name != "" {
		path, err := findKratos(ctx, name)
		if err != nil {
			return fmt.Errorf("KRATOS must be the absolute path of an Ory Kratos, or its name in PATH: %w", err)
		}
		fmt.Println("Using the Ory Kratos at", path)
		kratosBinary = path
	} else if err := buildKratos(ctx); err != nil {
		return err
	}
	app := command(ctx, "go", "build", "-C", "..", "-o", filepath.Join("kratos", appBinary), ".")
	app.Stderr = os.Stderr
	if err := app.Run(); err != nil {
		return fmt.Errorf("building the app: %w", err)
	}
	return nil
}

// findKratos returns the path of the Kratos that is called name.
func findKratos(ctx context.Context, name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		return "", errors.New(name + " is relative, and go -C has changed the folder")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "serve", "--help")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and all that it has started
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
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

// buildKratos builds Kratos, or sees that it is up to date.
func buildKratos(ctx context.Context) error {
	out, err := command(ctx, "go", "env", "CC", "CGO_CFLAGS").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	cc, cFlags, _ := strings.Cut(strings.TrimSuffix(string(out), "\n"), "\n")
	goBuild := func(args ...string) *exec.Cmd {
		// Neither optimised nor to be debugged: it is to be built quickly, and need not be quick.
		cmd := command(ctx, "go", append([]string{"build", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS="+cFlags+" -O0 -g0")
		return cmd
	}
	// The part of Kratos that tells whether the C compiler works.
	if err := goBuild("runtime/cgo").Run(); err != nil {
		return fmt.Errorf(`the C compiler %q does not work, as "CGO_ENABLED=1 go build runtime/cgo" shows, and Kratos's SQLite `+
			`needs one: install gcc or clang, or set CC, or set KRATOS to a Kratos that you have`, cc)
	}

	fmt.Println("Building Ory Kratos from source: minutes the first time, a second after that.")
	cmd := goBuild("-v", "-tags=sqlite", "-o", kratosBinary, "github.com/ory/kratos")
	output, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
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
