package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"
)

// The user who can sign in.
const (
	Email    = "demo@example.com"
	Password = "demo-password"
)

// Stack is the app, a Kratos and a page to sign in on.
type Stack struct {
	AppPort, KratosPort, AdminPort, SignInPort int // TCP ports of localhost

	KratosBinary string   // the path that Build returns
	DSN          string   // Kratos's database
	Log          *os.File // where Kratos and the app print; nil for nowhere

	Kratos, App *Program // nil until they are started

	dir    string // temporary, with Kratos's configuration
	signIn *http.Server
}

// Start starts all of s but the app, and returns when a user can sign in. Its programs end with ctx.
func (s *Stack) Start(ctx context.Context) error {
	if err := s.configureKratos(); err != nil {
		return err
	}
	if err := s.StartKratos(ctx); err != nil {
		return err
	}
	if err := s.CreateUser(ctx, Email); err != nil {
		return err
	}
	return s.startSignIn()
}

// Stop ends all of s, also if only a part of it was started, and returns when nothing is left.
func (s *Stack) Stop() {
	if s.signIn != nil {
		s.signIn.Close()
	}
	for _, p := range []*Program{s.App, s.Kratos} {
		if p != nil {
			p.Stop()
		}
	}
	os.RemoveAll(s.dir)
}

var (
	//go:embed kratos.yml
	kratosConfig string
	//go:embed identity.schema.json
	identitySchema []byte
)

func (s *Stack) configFile() string { return filepath.Join(s.dir, "kratos.yml") }

// configureKratos writes Kratos's configuration to s.configFile.
func (s *Stack) configureKratos() error {
	dir, err := os.MkdirTemp("", "ory-logout")
	if err != nil {
		return err
	}
	s.dir = dir
	file, err := os.Create(s.configFile())
	if err != nil {
		return err
	}
	defer file.Close()
	return template.Must(template.New("").Parse(kratosConfig)).Execute(file, struct {
		*Stack
		Schema string
	}{s, base64.StdEncoding.EncodeToString(identitySchema)})
}

// StartKratos starts Kratos, and returns when it is ready.
func (s *Stack) StartKratos(ctx context.Context) error {
	// The user's environment is left out, as a DSN and the like there would override the configuration file.
	// --dev makes Kratos set cookies without Secure, as plain http needs them.
	args := []string{"serve", "--dev", "--sqa-opt-out", "--config", s.configFile()}
	kratos, err := StartProgram(ctx, s.Log, []string{}, s.KratosBinary, args...)
	if err != nil {
		return fmt.Errorf("starting Kratos: %w", err)
	}
	s.Kratos = kratos
	if err := kratos.waitFor(ctx, s.KratosPort, "/health/ready"); err != nil {
		// A Kratos without SQLite tries for minutes to open its database, and logs that as a warning, which kratos.yml hides.
		if s.KratosBinary != builtKratos && ctx.Err() == nil {
			err = fmt.Errorf("%w: is KRATOS, %s, an Ory Kratos with SQLite?", err, s.KratosBinary)
		}
		return fmt.Errorf("starting Kratos: %w", err)
	}
	return nil
}

// StartApp starts the app on port, and returns when it answers.
func (s *Stack) StartApp(ctx context.Context, port int) error {
	env := append(os.Environ(), fmt.Sprintf("PORT=%d", port), fmt.Sprintf("ORY_SDK_URL=http://localhost:%d", s.KratosPort))
	app, err := StartProgram(ctx, s.Log, env, builtApp)
	if err != nil {
		return fmt.Errorf("starting the app: %w", err)
	}
	s.App = app
	if err := app.waitFor(ctx, port, "/"); err != nil {
		return fmt.Errorf("starting the app: %w", err)
	}
	return nil
}

// CreateUser creates a user who can sign in with Password.
func (s *Stack) CreateUser(ctx context.Context, email string) error {
	type object map[string]any
	user, _ := json.Marshal(object{ // can have no error
		"schema_id": "default", "traits": object{"email": email},
		"credentials": object{"password": object{"config": object{"password": Password}}},
	})
	url := fmt.Sprintf("http://localhost:%d/admin/identities", s.AdminPort)
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(user))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("creating the user: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("creating the user: Kratos answered %s: %s", resp.Status, answer)
	}
	return nil
}

// startSignIn serves the sign-in page.
func (s *Stack) startSignIn() error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.SignInPort))
	if err != nil {
		return fmt.Errorf("serving the sign-in page: %w", err)
	}
	s.signIn = &http.Server{Handler: http.HandlerFunc(s.signInHandler)}
	go s.signIn.Serve(ln)
	return nil
}

// command returns a command that is interrupted at the end of ctx, so that it can clean up, and killed if it still runs
// 10 seconds later.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Program is a program that has been started.
type Program struct {
	*exec.Cmd
	Ended  chan struct{} // closed when it has ended
	cancel context.CancelFunc
}

// StartProgram starts a program. Its environment is env, or this program's if env is nil. Its output goes to log, or nowhere
// if log is nil.
func StartProgram(ctx context.Context, log *os.File, env []string, name string, args ...string) (*Program, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, name, args...)
	cmd.Env = env
	if log != nil {
		cmd.Stdout = log
		cmd.Stderr = log
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &Program{Cmd: cmd, Ended: make(chan struct{}), cancel: cancel}
	go func() {
		cmd.Wait()
		close(p.Ended)
	}()
	return p, nil
}

// Stop ends p, and returns when it has ended.
func (p *Program) Stop() {
	p.cancel()
	<-p.Ended
}

// waitFor returns when p answers a GET request for path with 200, or an error if that takes more than a minute.
func (p *Program) waitFor(ctx context.Context, port int, path string) error {
	url := fmt.Sprintf("http://localhost:%d%s", port, path)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("%s has not answered 200 OK for a minute", url))
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.Ended:
			return fmt.Errorf("it has ended (%s)", p.ProcessState)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
