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
	out, err := command(ctx, "go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("go env CC: %w", err)
	}
	cc, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if _, err := exec.LookPath(cc); err != nil {
		return fmt.Errorf("there is no C compiler %q, and Kratos's SQLite needs one: install gcc or clang, or set CC", cc)
	}
	fmt.Println("Building Ory Kratos from source: minutes the first time, a second after that.")
	cmd := command(ctx, "go", "build", "-v", "-tags", "sqlite", "-o", kratosBinary, "github.com/ory/kratos")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
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
