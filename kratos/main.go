// Kratos runs the app against a real Ory Kratos, with a user to sign in and a page to sign in on:
//
//	go -C kratos run .
//
// It builds Kratos from source, so it needs a C compiler, for SQLite.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "kratos:", err)
		os.Exit(1)
	}
}

// run runs it all until the end of ctx.
func run(ctx context.Context) error {
	s := &stack{AppPort: 3000, KratosPort: 4000, AdminPort: 4434, SignInPort: 4455, DSN: "memory", log: os.Stderr}
	if err := s.checkPorts(); err != nil { // before a build that may take minutes
		return err
	}
	if err := build(ctx); err != nil {
		return err
	}
	defer s.stop()
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := s.startApp(ctx, s.AppPort); err != nil {
		return err
	}
	fmt.Printf(`
Open   http://localhost:%d
click  Sign in
type   %s
and    %s
click  Logout

Ctrl-C ends it all.
`, s.AppPort, demoEmail, demoPassword)
	select {
	case <-s.kratos.ended:
		return errors.New("the Kratos server has ended by itself")
	case <-s.app.ended:
		return errors.New("the app has ended by itself")
	case <-ctx.Done():
		return nil
	}
}

// checkPorts returns an error that names the first of s's ports that is taken.
func (s *stack) checkPorts() error {
	for _, port := range []struct {
		number int
		user   string
	}{{s.AppPort, "the app"}, {s.KratosPort, "Kratos"}, {s.AdminPort, "Kratos's admin API"}, {s.SignInPort, "the sign-in page"}} {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port.number))
		if err != nil {
			return fmt.Errorf("port %d is taken, but %s needs it: end the program that listens there", port.number, port.user)
		}
		ln.Close()
	}
	return nil
}

// The programs that build makes, from this module's folder, in which "go run" and "go test" start it.
var (
	kratosBinary = filepath.Join(".bin", "kratos")
	appBinary    = filepath.Join(".bin", "ory-logout")
)

// build builds Kratos and the app, or sees that they are up to date, and prints its progress.
func build(ctx context.Context) error {
	out, err := command(ctx, "go", "env", "CC").Output()
	if err != nil {
		return fmt.Errorf("go env CC: %w", err)
	}
	cc, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if _, err := exec.LookPath(cc); err != nil {
		return fmt.Errorf("there is no C compiler %q, and Kratos's SQLite needs one: install gcc or clang, or set CC", cc)
	}
	fmt.Println("Building Ory Kratos from source: minutes the first time, a second after that.")
	if err := buildKratos(ctx); err != nil {
		return fmt.Errorf("building Kratos: %w", err)
	}
	app := command(ctx, "go", "build", "-C", "..", "-o", filepath.Join("kratos", appBinary), ".")
	app.Stderr = os.Stderr
	if err := app.Run(); err != nil {
		return fmt.Errorf("building the app: %w", err)
	}
	return nil
}

func buildKratos(ctx context.Context) error {
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
	return cmd.Wait()
}
