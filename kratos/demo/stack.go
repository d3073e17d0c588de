package demo

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	AppPort, KratosPort, AdminPort, SignInPort int      // TCP ports of localhost
	DSN                                        string   // Kratos's database
	Log                                        *os.File // what Kratos and the app print; nil for nowhere

	Kratos, App *Program // once started

	dir    string // temporary, of Kratos's configuration
	signIn *http.Server
}

// Start starts all of s but the app, and returns when a user can sign in. The end of ctx ends its programs.
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

// Stop ends all of s, and returns when nothing is left of it.
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
func (s *Stack) configureKratos() (err error) {
	if s.dir, err = os.MkdirTemp("", "ory-logout"); err != nil {
		return err
	}
	var config bytes.Buffer
	if err := template.Must(template.New("").Parse(kratosConfig)).Execute(&config, struct {
		*Stack
		Schema string
	}{s, base64.StdEncoding.EncodeToString(identitySchema)}); err != nil {
		return err
	}
	return os.WriteFile(s.configFile(), config.Bytes(), 0o600)
}

// StartKratos returns when Kratos is ready.
func (s *Stack) StartKratos(ctx context.Context) (err error) {
	// env -i, as the user's own DSN and the like would override the configuration file.
	// --dev: cookies without Secure, as on http://localhost.
	s.Kratos, err = StartProgram(ctx, s.Log, nil, "env", "-i", KratosBinary, "serve", "--dev", "--sqa-opt-out", "--config", s.configFile())
	if err != nil {
		return err
	}
	if err := s.Kratos.waitFor(ctx, s.KratosPort, "/health/ready"); err != nil {
		return fmt.Errorf("%w: Kratos must have SQLite built in", err)
	}
	return nil
}

// StartApp starts the app on port, and returns when it answers.
func (s *Stack) StartApp(ctx context.Context, port int) (err error) {
	env := []string{fmt.Sprintf("PORT=%d", port), fmt.Sprintf("ORY_SDK_URL=http://localhost:%d", s.KratosPort)}
	if s.App, err = StartProgram(ctx, s.Log, env, appBinary); err != nil {
		return err
	}
	return s.App.waitFor(ctx, port, "/")
}

// CreateUser creates a user who can sign in with Password.
func (s *Stack) CreateUser(ctx context.Context, email string) error {
	user := `{"schema_id": "default", "traits": {"email": "` + email + `"}, ` +
		`"credentials": {"password": {"config": {"password": "` + Password + `"}}}}`
	url := fmt.Sprintf("http://localhost:%d/admin/identities", s.AdminPort)
	req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(user))
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

// command returns a command that is interrupted, and after 10 seconds killed, at the end of ctx.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Program is a program that runs.
type Program struct {
	*exec.Cmd
	cancel context.CancelFunc
	Ended  chan struct{} // closed at its end
}

// StartProgram starts a program with env beside the environment. Its output goes to log, or nowhere if log is nil.
func StartProgram(ctx context.Context, log *os.File, env []string, name string, args ...string) (*Program, error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if log != nil {
		cmd.Stdout, cmd.Stderr = log, log
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &Program{cmd, cancel, make(chan struct{})}
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

// waitFor waits until p answers a GET request for path with 200, for a minute at the most.
func (p *Program) waitFor(ctx context.Context, port int, path string) error {
	url := fmt.Sprintf("http://localhost:%d%s", port, path)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("%s has not answered %s for a minute", p, url))
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.Ended:
			return fmt.Errorf("%s has ended: %s", p, p.ProcessState)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
