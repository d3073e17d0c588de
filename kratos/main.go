// Kratos runs the app against a real Ory Kratos, with a user to sign in and a page to sign in on:
//
//	go -C kratos run .
//
// It builds Kratos from source, for which it needs a C compiler. To use a Kratos that you have, one with SQLite:
//
//	KRATOS=/path/to/kratos go -C kratos run .
//
// KRATOS is an absolute path, or a name to look for in PATH.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"ory-logout/kratos/demo"
)

func main() {
	// SIGPIPE comes when nobody reads the output any more, as with "| head -1".
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := run(ctx)
	// After a signal, an error says no more than that something was interrupted.
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "kratos:", err)
		os.Exit(1)
	}
}

// run runs the app, Kratos and the sign-in page until the end of ctx.
func run(ctx context.Context) error {
	s := &demo.Stack{AppPort: 3000, KratosPort: 4000, AdminPort: 4434, SignInPort: 4455, DSN: "memory", Log: os.Stderr}
	// Build may take minutes, too long to wait for the news that a port is taken.
	if err := checkPorts(s); err != nil {
		return err
	}
	kratos, err := demo.Build(ctx)
	if err != nil {
		return err
	}
	s.KratosBinary = kratos
	defer s.Stop()
	if err := s.Start(ctx); err != nil {
		return err
	}
	if err := s.StartApp(ctx, s.AppPort); err != nil {
		return err
	}
	fmt.Printf(`
Open   http://localhost:%d
click  Sign in
type   %s
and    %s
click  Logout

Ctrl-C ends it all.
`, s.AppPort, demo.Email, demo.Password)
	select {
	case <-s.Kratos.Ended:
		return fmt.Errorf("the Kratos server has ended by itself (%s)", s.Kratos.ProcessState)
	case <-s.App.Ended:
		return fmt.Errorf("the app has ended by itself (%s)", s.App.ProcessState)
	case <-ctx.Done():
		return nil
	}
}

// checkPorts returns an error that names the first of s's ports that is taken.
func checkPorts(s *demo.Stack) error {
	for _, port := range []int{s.AppPort, s.KratosPort, s.AdminPort, s.SignInPort} {
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("the demo needs port %d: end the program that listens there (%w)", port, err)
		}
		ln.Close()
	}
	return nil
}
