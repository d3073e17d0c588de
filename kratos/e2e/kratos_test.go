package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"ory-logout/kratos/demo"
)

const (
	signedIn  = "You are signed in."
	signedOut = "You are signed out."
	unknown   = "You may be signed in."
	question  = "Do you want to sign out?"
)

// client is a user with a cookie jar and without a browser.
type client struct {
	http.Client
	s *demo.Stack
}

// send sends a request, with form if there is one, and returns the page that it leads to, and where that is.
func (c *client) send(accept, url string, form url.Values) (page, landed string, err error) {
	method := "GET"
	if form != nil {
		method = "POST"
	}
	req, err := http.NewRequest(method, url, strings.NewReader(form.Encode()))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), resp.Request.URL.String(), err
}

// checkPage checks that path leads to the home page, which says text.
func (c *client) checkPage(t *testing.T, path, text string) {
	t.Helper()
	home := fmt.Sprintf("http://localhost:%d", c.s.AppPort)
	page, landed, err := c.send("text/html", home+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if landed != home+"/" || !strings.Contains(page, text) {
		t.Errorf("%s: landed on %s, want %s, and the page to say %q:\n%s", path, landed, home+"/", text, page)
	}
}

// flow is what Kratos answers when a login or a change of settings begins.
type flow struct {
	UI struct {
		Action string
		Nodes  []struct {
			Attributes struct {
				ID, Name string
				Value    any
				Text     struct{ Text string }
			}
		}
	}
}

// start starts a flow, and returns it with the value that its form must hold for Kratos to know that it is its own.
func (c *client) start(kind string) (f flow, csrfToken string, err error) {
	body, _, err := c.send("application/json", fmt.Sprintf("http://localhost:%d/self-service/%s/browser", c.s.KratosPort, kind), nil)
	if err == nil {
		err = json.Unmarshal([]byte(body), &f)
	}
	for _, node := range f.UI.Nodes {
		if node.Attributes.Name == "csrf_token" {
			csrfToken = fmt.Sprint(node.Attributes.Value)
		}
	}
	return f, csrfToken, err
}

func (c *client) signIn(email string) error {
	login, csrfToken, err := c.start("login")
	if err != nil {
		return err
	}
	answer, _, err := c.send("application/json", login.UI.Action, url.Values{
		"csrf_token": {csrfToken}, "identifier": {email}, "password": {demo.Password}, "method": {"password"},
	})
	if err == nil && c.session() == "" {
		err = fmt.Errorf("no session:\n%s", answer)
	}
	return err
}

// session returns Kratos's session cookie, as a Cookie header has it, or "" if there is none.
func (c *client) session() string {
	for _, cookie := range c.Jar.Cookies(&url.URL{Scheme: "http", Host: "localhost", Path: "/"}) {
		if cookie.Name == sessionCookie {
			return cookie.String()
		}
	}
	return ""
}

// newSession returns a client that is signed in.
func newSession(t *testing.T, s *demo.Stack, email string) *client {
	t.Helper()
	var c *client
	retry(t, "a session", func() error {
		signingIn.Lock()
		defer signingIn.Unlock()
		jar, _ := cookiejar.New(nil) // has no errors
		c = &client{Client: http.Client{Jar: jar, Timeout: commandTimeout}, s: s}
		return c.signIn(email)
	})
	return c
}

// whoami returns the status with which Kratos answers who has session, a Cookie header:
// 200 if it is valid, 401 if it is not, 403 if it lacks a second factor.
func whoami(s *demo.Stack, session string) (int, error) {
	req, err := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/sessions/whoami", s.KratosPort), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Cookie", session)
	resp, err := (&http.Client{Timeout: commandTimeout}).Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func checkWhoami(t *testing.T, s *demo.Stack, session string, want int) {
	t.Helper()
	if got, err := whoami(s, session); err != nil || got != want {
		t.Errorf("whoami with the session's cookie: got %d, %v, want %d", got, err, want)
	}
}

const logoutTokenStart = "ory_lo_" // of all logout tokens of Kratos's

// While Kratos fails, a click on Logout neither signs out nor says so. Once it works again, the next one does.
func TestKratosFaults(t *testing.T) {
	dir := t.TempDir()
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	s := newStack(dir, "&_journal=DELETE")
	s.KratosBinary = shared.KratosBinary
	s.Log = logFile
	defer s.Stop()
	if err := startWithDatabase(interrupted, s); err != nil {
		t.Fatal(err)
	}
	if err := s.StartApp(interrupted, s.AppPort); err != nil {
		t.Fatal(err)
	}

	db := filepath.Join(dir, database)
	var tables []byte
	secrets := []string{logoutTokenStart}
	for _, fault := range []struct {
		name        string
		happen, end func() error
	}{
		{name: "Kratos has ended", happen: func() error {
			s.Kratos.Stop()
			return nil
		}, end: func() error { return s.StartKratos(interrupted) }},
		// To SQLite, an empty file is a database without tables. It reads a file again whose change counter is another one:
		// https://sqlite.org/fileformat.html
		{name: "Kratos's database has lost its tables", happen: func() (err error) {
			if tables, err = os.ReadFile(db); err != nil {
				return err
			}
			tables[27]++
			return os.Truncate(db, 0)
		}, end: func() error { return os.WriteFile(db, tables, 0) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			c := newSession(t, s, demo.Email)
			session := c.session()
			_, value, _ := strings.Cut(session, "=")
			secrets = append(secrets, value)
			c.checkPage(t, "/", signedIn)

			if err := fault.happen(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			c.checkPage(t, "/logout", unknown)
			if got := time.Since(start); got > 5*time.Second {
				t.Errorf("got the home page after %v, want it within 5 seconds", got)
			}

			if err := fault.end(); err != nil {
				t.Fatal(err)
			}
			checkWhoami(t, s, session, http.StatusOK)
			c.checkPage(t, "/logout", signedOut)
			checkWhoami(t, s, session, http.StatusUnauthorized)
		})
	}
	logged, err := os.ReadFile(logFile.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(logged), "logout failed") {
		t.Error("no failed logout is logged")
	}
	for _, secret := range secrets {
		if strings.Contains(string(logged), secret) {
			t.Error("a session cookie or a logout token is logged")
		}
	}
}

// Kratos has one logout token for a session, however often it is asked. Else a click on the question could lead back to it.
func TestLogoutToken(t *testing.T) {
	c := newSession(t, shared, demo.Email)
	flowURL := fmt.Sprintf("http://localhost:%d/self-service/logout/browser", shared.KratosPort)
	first, _, err := c.send("application/json", flowURL, nil)
	second, _, err2 := c.send("application/json", flowURL, nil)
	if !strings.Contains(first, `"logout_token":"`+logoutTokenStart) || first != second {
		t.Errorf("got %s (%v) and %s (%v), want logout flows that are alike", first, err, second, err2)
	}
}

// A user who has typed the password, and not yet the second factor, has a session to end.
func TestSecondFactor(t *testing.T) {
	const email = "second-factor@example.com"
	if err := shared.CreateUser(interrupted, email); err != nil {
		t.Fatal(err)
	}
	c := newSession(t, shared, email)
	settings, csrfToken, err := c.start("settings")
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"method": {"totp"}, "csrf_token": {csrfToken}}
	for _, node := range settings.UI.Nodes {
		if node.Attributes.ID == "totp_secret_key" {
			code, err := totp.GenerateCode(node.Attributes.Text.Text, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			form.Set("totp_code", code)
		}
	}
	if _, _, err := c.send("application/json", settings.UI.Action, form); err != nil {
		t.Fatal(err)
	}

	c = newSession(t, shared, email)
	session := c.session()
	checkWhoami(t, shared, session, http.StatusForbidden)
	c.checkPage(t, "/", signedIn)
	c.checkPage(t, "/logout", signedOut)
	checkWhoami(t, shared, session, http.StatusUnauthorized)
}
