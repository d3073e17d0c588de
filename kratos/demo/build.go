// Package demo builds and runs the app with a real Ory Kratos, a user to sign in and a page to sign in on.
package demo

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
)

// The programs that Build makes, relative to this module's folder, where all that uses this package must run.
const (
	builtApp    = ".bin/ory-logout"
	builtKratos = ".bin/kratos"
)

// Build builds the app, and Kratos unless KRATOS names one. It prints its progress, and returns Kratos's path.
func Build(ctx context.Context) (string, error) {
	kratos := builtKratos
	if name := os.Getenv("KRATOS"); name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("KRATOS must be the absolute path of an Ory Kratos, or its name in PATH: %w", err)
		}
		kratos = path
		fmt.Println("Using the Ory Kratos at", kratos)
	} else {
		fmt.Println("Building Ory Kratos from source: minutes the first time, seconds after that.")
		if err := buildKratos(ctx); err != nil {
			return "", err
		}
	}

	app := command(ctx, "go", "build", "-C", "..", "-o", filepath.Join("kratos", builtApp), ".")
	app.Stderr = os.Stderr
	if err := app.Run(); err != nil {
		return "", fmt.Errorf("building the app: %w", err)
	}
	return kratos, nil
}

func buildKratos(ctx context.Context) error {
	// Without this, the error would come after all of Kratos's modules are downloaded, among other lines.
	if err := kratosBuild(ctx, "runtime/cgo").Run(); err != nil {
		return errors.New(`no C compiler works here, as "CGO_ENABLED=1 go build runtime/cgo" shows, and Kratos's SQLite needs one: ` +
			`install gcc or clang, or set CC, or set KRATOS to a Kratos that you have`)
	}
	// An interrupted go build leaves its temporary files behind, which may be hundreds of MB.
	tmp, err := os.MkdirTemp(os.Getenv("GOTMPDIR"), "ory-logout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	build := kratosBuild(ctx, "-v", "-o", builtKratos, "github.com/ory/kratos")
	build.Env = append(build.Env, "GOTMPDIR="+tmp)
	output, err := build.StderrPipe()
	if err != nil {
		return err
	}
	if err := build.Start(); err != nil {
		return err
	}
	printProgress(output)
	if err := build.Wait(); err != nil {
		return fmt.Errorf("building Kratos: %w", err)
	}
	return nil
}

// kratosBuild returns a go build command, with the flags that Kratos is built with. They make a slow program that has
// SQLite and no debugging information, for a third less of the processor's time.
func kratosBuild(ctx context.Context, args ...string) *exec.Cmd {
	flags := []string{"build", "-tags=sqlite", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w"}
	cmd := command(ctx, "go", append(flags, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS="+os.Getenv("CGO_CFLAGS")+" -O0 -g0")
	return cmd
}

// printProgress counts the modules and packages that go build -v names in output, and prints all else that it says.
func printProgress(output io.Reader) {
	count := 0
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		isPackage := !strings.Contains(lines.Text(), " ")
		if !isPackage && !strings.HasPrefix(lines.Text(), "go: downloading ") {
			fmt.Fprintln(os.Stderr, lines.Text())
			continue
		}
		count++
		if count%100 == 0 {
			fmt.Printf("%4d modules and packages\n", count)
		}
	}
}
