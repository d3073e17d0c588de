package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ory-logout/kratos/demo"
)

// What all tests share: a stack whose app is reached through a proxy, and pages on two sites: on localhost,
// where the app is too, and on 127.0.0.1.
var (
	shared              *demo.Stack
	appURL              string
	sameSite, crossSite string
	visits              record
	appPort             int // that only the proxies know
)

// interrupted ends when the tests are interrupted.
var interrupted context.Context

func TestMain(m *testing.M) {
	os.Chdir("..") // to the module's folder, where package demo builds and finds its programs
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var stop context.CancelFunc
	interrupted, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "ory-logout")
	if err != nil {
		fmt.Println("kratos:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = newStack(dir)
	defer shared.Stop()
	if err := startShared(interrupted); err != nil {
		fmt.Println("kratos:", err)
		return 1
	}
	return m.Run()
}

// startShared starts it all.
func startShared(ctx context.Context) error {
	if err := demo.Build(ctx); err != nil {
		return err
	}
	if err := startWithDatabase(ctx, shared); err != nil {
		return err
	}
	appPort = freePort()
	if err := shared.StartApp(ctx, appPort); err != nil {
		return err
	}
	appURL = fmt.Sprintf("http://localhost:%d", shared.AppPort)
	if err := serveApp(shared.AppPort, nil, nil, nil); err != nil {
		return err
	}
	port := freePort()
	sameSite, crossSite = fmt.Sprintf("http://localhost:%d", port), fmt.Sprintf("http://127.0.0.1:%d", port)
	return serve(port, http.HandlerFunc(pageHandler))
}

// serveApp serves the app on one more port of localhost, with pages of the test's beside the app's, header in all
// answers of the app's, and logout in place of the app's if it is not nil.
func serveApp(port int, header, pages map[string]string, logout http.HandlerFunc) error {
	mux := http.NewServeMux()
	mux.Handle("/", visits.in(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("localhost:%d", appPort)})
			r.Out.Host = r.In.Host // which the app compares with the Referer's
		},
		ModifyResponse: func(resp *http.Response) error {
			for name, value := range header {
				resp.Header.Set(name, value)
			}
			return nil
		},
	}))
	if logout != nil {
		mux.Handle("/logout", visits.in(logout))
	}
	for path, body := range pages {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", cmp.Or(mime.TypeByExtension(filepath.Ext(path)), "text/html; charset=utf-8"))
			io.WriteString(w, body)
		})
	}
	// For scripts, as Kratos's session cookie is HttpOnly.
	mux.HandleFunc("/test/cookie", func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie(sessionCookie); err == nil {
			io.WriteString(w, cookie.String())
		}
	})
	return serve(port, mux)
}

// pageHandler answers with what its query asks for: a session cookie like Kratos's, a redirect, a body.
func pageHandler(w http.ResponseWriter, r *http.Request) {
	if session := r.FormValue("session"); session != "" {
		http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	if to := r.FormValue("redirect"); to != "" {
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, "<!doctype html><title>Page</title><body>"+r.FormValue("body"))
}

const sessionCookie = "ory_kratos_session"

// serve serves h on a port of the loopback, until the program ends.
func serve(port int, h http.Handler) error {
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		go http.Serve(ln, h)
	}
	return err
}

// newStack returns a stack with its database in dir: in one in memory, what several users write at once fails.
func newStack(dir string) *demo.Stack {
	return &demo.Stack{
		AppPort: freePort(), KratosPort: freePort(), AdminPort: freePort(), SignInPort: freePort(),
		DSN: "sqlite://" + filepath.Join(dir, "kratos.sqlite") + "?_fk=true&_journal=WAL&_sync=OFF",
	}
}

// startWithDatabase makes s's database, and starts all of s but the app.
func startWithDatabase(ctx context.Context, s *demo.Stack) error {
	if out, err := exec.CommandContext(ctx, demo.KratosBinary, "migrate", "sql", "--yes", s.DSN).CombinedOutput(); err != nil {
		return fmt.Errorf("migrating Kratos's database: %w\n%s", err, out)
	}
	return s.Start(ctx)
}

var lastPort atomic.Int64

func init() { lastPort.Store(11000 + rand.Int64N(15000)) }

// freePort returns a port that no program listens on, that no outgoing connection takes, and that it has not returned before.
func freePort() int {
	for {
		port := int(lastPort.Add(1))
		if ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
}

// record is the last visit to each logout URL. Several goroutines may use it.
type record struct{ byURL sync.Map }

type visit struct {
	status int         // of the answer
	header http.Header // of the request
}

// in returns h, with its visits in r.
func (r *record) in(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(sw, req)
		if req.URL.Path == "/logout" {
			r.byURL.Store("http://"+req.Host+req.URL.String(), visit{sw.status, req.Header})
		}
	})
}

// last returns the last visit to url, or none if nobody has visited it.
func (r *record) last(url string) visit {
	v, _ := r.byURL.Load(url)
	last, _ := v.(visit)
	return last
}

var logoutCount atomic.Int64

// uniqueLogout returns a logout URL of site, with a query n by which the record of visits can tell it from all others.
func uniqueLogout(site string) (url string, n int64) {
	n = logoutCount.Add(1)
	return fmt.Sprintf("%s/logout?n=%d", site, n), n
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
	unknown   = "You may be signed in."
)

// client is a user with a cookie jar and without a browser.
type client struct {
	http.Client
	s *demo.Stack
}

func newClient(s *demo.Stack) *client {
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
	linkPattern   = regexp.MustCompile(`<a href="([^"]*)"[^>]*>(?:Sign in|Logout)</a>`)
	formPattern   = regexp.MustCompile(`<form action="([^"]*)"`)
	hiddenPattern = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// signIn follows the home page's link to the sign-in page, and sends its form. It returns the page after it.
func (c *client) signIn(password string) (page string, err error) {
	home := fmt.Sprintf("http://localhost:%d/", c.s.AppPort)
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
		hidden[1]: {html.UnescapeString(hidden[2])}, "identifier": {demo.Email}, "password": {password}, "method": {"password"},
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
		if cookie.Name == sessionCookie {
			return cookie.String()
		}
	}
	return ""
}

// whoami returns the status with which Kratos answers who has session, a Cookie header:
// 200 if it is valid, 401 if it is not.
func whoami(s *demo.Stack, session string) (int, error) {
	req, err := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/sessions/whoami", s.KratosPort), nil)
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

func checkWhoami(t *testing.T, s *demo.Stack, session string, want int) {
	t.Helper()
	if got, err := whoami(s, session); err != nil || got != want {
		t.Errorf("whoami with the session's cookie: got %d, %v, want %d", got, err, want)
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	retry(t, what, func() error {
		if done() {
			return nil
		}
		return errors.New("not yet")
	})
}

// retry calls f until it succeeds, and fails the test if that takes too long.
func retry(t *testing.T, what string, f func() error) {
	t.Helper()
	if err := poll(f); err != nil {
		t.Fatalf("waited in vain for %s: %v", what, err)
	}
}

// poll calls f until it succeeds, or for 30 seconds.
func poll(f func() error) (err error) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil || interrupted.Err() != nil {
			break
		}
	}
	return err
}
