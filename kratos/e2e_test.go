package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// What all tests share: a stack whose app is reached through a proxy that keeps a record of the visits.
var (
	shared *stack
	appURL string
	visits record
)

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	shared = newStack("memory")
	defer shared.stop()
	if err := startShared(context.Background()); err != nil {
		fmt.Println("kratos:", err)
		return 1
	}
	return m.Run()
}

func startShared(ctx context.Context) error {
	if err := build(ctx); err != nil {
		return err
	}
	if err := shared.start(ctx); err != nil {
		return err
	}
	port := freePort()
	if err := shared.startApp(ctx, port); err != nil {
		return err
	}
	app := &url.URL{Scheme: "http", Host: fmt.Sprintf("localhost:%d", port)}
	appURL = fmt.Sprintf("http://localhost:%d", shared.App)
	return serve(shared.App, visits.of(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app) },
	}))
}

// serve serves h on a port of the loopback, until the program ends.
func serve(port int, h http.Handler) error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		go http.Serve(ln, h)
	}
	return err
}

func newStack(dsn string) *stack {
	return &stack{App: freePort(), Kratos: freePort(), Admin: freePort(), SignIn: freePort(), DSN: dsn}
}

// freePort returns a port that no program listens on, and that no outgoing connection takes.
func freePort() int {
	for {
		port := 10000 + rand.IntN(20000)
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
}

// visit is a request for /logout, and its answer.
type visit struct {
	host, dest, purpose string
	status              int
}

// record is a list of visits that several goroutines may use.
type record struct {
	mu   sync.Mutex
	list []visit
}

// of returns h, with its visits in r.
func (r *record) of(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(sw, req)
		if req.URL.Path == "/logout" {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.list = append(r.list, visit{req.Host, req.Header.Get("Sec-Fetch-Dest"), req.Header.Get("Sec-Purpose"), sw.status})
		}
	})
}

// since returns the visits after the first n.
func (r *record) since(n int) []visit {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list[n:]
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

const (
	signedIn  = "You are signed in."
	signedOut = "You are signed out."
	unknown   = "could not be asked"
)

// client is a user with a cookie jar and without a browser.
type client struct {
	http.Client
	s *stack
}

func newClient(s *stack) *client {
	jar, _ := cookiejar.New(nil) // has no errors
	return &client{http.Client{Jar: jar}, s}
}

// get returns the page that url leads to, and where that is.
func (c *client) get(url string) (page, landed string, err error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), resp.Request.URL.String(), err
}

var (
	linkPattern   = regexp.MustCompile(`<a href="([^"]*)">(?:Sign in|Logout)</a>`)
	formPattern   = regexp.MustCompile(`<form action="([^"]*)"`)
	hiddenPattern = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// signIn follows the home page's link to the sign-in page, and sends its form. It returns the page after it.
func (c *client) signIn(password string) (page string, err error) {
	home := fmt.Sprintf("http://localhost:%d/", c.s.App)
	page, _, err = c.get(home)
	if err != nil {
		return "", err
	}
	link := linkPattern.FindStringSubmatch(page)
	if link == nil || !strings.Contains(page, signedOut) {
		return "", fmt.Errorf("no home page of a signed-out user:\n%s", page)
	}
	page, _, err = c.get(html.UnescapeString(link[1]))
	if err != nil {
		return "", err
	}
	form, hidden := formPattern.FindStringSubmatch(page), hiddenPattern.FindStringSubmatch(page)
	if form == nil || hidden == nil {
		return "", fmt.Errorf("no sign-in page:\n%s", page)
	}
	resp, err := c.PostForm(html.UnescapeString(form[1]), url.Values{
		hidden[1]: {html.UnescapeString(hidden[2])}, "identifier": {demoEmail}, "password": {password}, "method": {"password"},
	})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// session returns Kratos's session cookie, as a Cookie header has it, or "" if there is none.
func (c *client) session() string {
	for _, cookie := range c.Jar.Cookies(&url.URL{Scheme: "http", Host: "localhost", Path: "/"}) {
		if cookie.Name == "ory_kratos_session" {
			return cookie.String()
		}
	}
	return ""
}

// whoami returns the status with which Kratos answers who has session, a Cookie header:
// 200 if it is valid, 401 if it is not.
func (s *stack) whoami(session string) (int, error) {
	req, err := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/sessions/whoami", s.Kratos), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Cookie", session)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func checkWhoami(t *testing.T, s *stack, session string, want int) {
	t.Helper()
	if got, err := s.whoami(session); err != nil || got != want {
		t.Errorf("whoami with the session's cookie: got %d, %v, want %d", got, err, want)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// What Ory promises of a logout: https://www.ory.com/docs/kratos/self-service/flows/user-logout
func TestLogout(t *testing.T) {
	for _, tt := range []struct{ name, returnTo, want string }{
		{"no return_to", "", "/"},
		{"allowed return_to", appURL + "/?after=logout", "/?after=logout"},
		{"refused return_to", "https://evil.example/", "/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(shared)
			page, err := c.signIn(demoPassword)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(page, signedIn) {
				t.Fatalf("got a page without %q:\n%s", signedIn, page)
			}
			session := c.session()
			checkWhoami(t, shared, session, 200)

			logout := appURL + linkPattern.FindStringSubmatch(page)[1]
			if tt.returnTo != "" {
				logout += "?return_to=" + url.QueryEscape(tt.returnTo)
			}
			page, landed, err := c.get(logout)
			if err != nil {
				t.Fatal(err)
			}
			checkWhoami(t, shared, session, 401)
			if got := c.session(); got != "" {
				t.Errorf("got session cookie %q, want none", got)
			}
			if got, want := landed, appURL+tt.want; got != want {
				t.Errorf("landed on %s, want %s", got, want)
			}
			if !strings.Contains(page, signedOut) {
				t.Errorf("got a page without %q:\n%s", signedOut, page)
			}
		})
	}
}

func TestLogoutSignedOut(t *testing.T) {
	page, landed, err := newClient(shared).get(appURL + "/logout")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := landed, appURL+"/"; got != want {
		t.Errorf("landed on %s, want %s", got, want)
	}
	if !strings.Contains(page, signedOut) {
		t.Errorf("got a page without %q:\n%s", signedOut, page)
	}
}

func TestWrongPassword(t *testing.T) {
	c := newClient(shared)
	page, err := c.signIn("wrong")
	if err != nil {
		t.Fatal(err)
	}
	if want := "The provided credentials are invalid"; !strings.Contains(page, want) || c.session() != "" {
		t.Errorf("got session %q and a page without %q:\n%s", c.session(), want, page)
	}
}

// 32 users click Logout all the time, while Kratos is killed and started again.
func TestKratosFaults(t *testing.T) {
	const users, kills = 32, 3
	ctx := t.Context()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := newStack("sqlite://" + filepath.Join(t.TempDir(), "kratos.sqlite") + "?_fk=true")
	s.log = log
	t.Cleanup(s.stop)
	if err := s.configureKratos(); err != nil {
		t.Fatal(err)
	}
	if out, err := command(ctx, kratosBinary, "migrate", "sql", "--yes", "--config", s.configFile(), "--read-from-env").CombinedOutput(); err != nil {
		t.Fatalf("migrating Kratos's database: %v\n%s", err, out)
	}
	_ = users
	_ = kills
}
