package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
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
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/preload"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
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
	appURL = fmt.Sprintf("http://localhost:%d", shared.AppPort)
	return serve(shared.AppPort, visits.of(&httputil.ReverseProxy{
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
	return &stack{AppPort: freePort(), KratosPort: freePort(), AdminPort: freePort(), SignInPort: freePort(), DSN: dsn}
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

// record is the status of the last answer to each logout URL. Several goroutines may use it.
type record struct{ byURL sync.Map }

// of returns h, with its visits in r.
func (r *record) of(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		h.ServeHTTP(sw, req)
		if req.URL.Path == "/logout" {
			r.byURL.Store("http://"+req.Host+req.URL.String(), sw.status)
		}
	})
}

// status returns the status of the last answer to url, or 0 if nobody has visited it.
func (r *record) status(url string) int {
	status, _ := r.byURL.Load(url)
	code, _ := status.(int)
	return code
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

// startWithDatabase starts a stack whose sessions survive the end of its Kratos. It returns what it logs.
func startWithDatabase(t *testing.T) (s *stack, log *os.File) {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s = newStack("sqlite://" + filepath.Join(dir, "kratos.sqlite") + "?_fk=true&_journal=WAL&_sync=OFF")
	s.log = log
	t.Cleanup(func() {
		s.stop()
		log.Close()
	})
	ctx := context.Background()
	if out, err := command(ctx, kratosBinary, "migrate", "sql", "--yes", s.DSN).CombinedOutput(); err != nil {
		t.Fatalf("migrating Kratos's database: %v\n%s", err, out)
	}
	if err := s.start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.startApp(ctx, s.AppPort); err != nil {
		t.Fatal(err)
	}
	return s, log
}

// click clicks Logout, and returns where that leads.
func (c *client) click(t *testing.T) (location string) {
	t.Helper()
	noRedirects := http.Client{Jar: c.Jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	start := time.Now()
	resp, err := noRedirects.Get(fmt.Sprintf("http://localhost:%d/logout", c.s.AppPort))
	if err != nil {
		t.Error(err)
		return ""
	}
	resp.Body.Close()
	if got, limit := time.Since(start), 5*time.Second; got > limit {
		t.Errorf("got an answer after %v, want at most %v", got, limit)
	}
	if got, want := resp.StatusCode, http.StatusSeeOther; got != want {
		t.Errorf("got status %d, want %d", got, want)
	}
	return resp.Header.Get("Location")
}

// retry calls f until it succeeds.
func retry(t *testing.T, f func() error) {
	t.Helper()
	waitFor(t, "Kratos", func() bool { return f() == nil })
}

// Kratos is killed and started again while users click Logout all the time.
func TestKratosFaults(t *testing.T) {
	const users, kills, clicks = 32, 3, 20
	s, log := startWithDatabase(t)

	var ended, failed atomic.Int64 // clicks that ended a session, and that led to /
	var secrets sync.Map
	var writes sync.Mutex // SQLite has no more than one writer at a time
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range users {
		wg.Go(func() {
			c := newClient(s)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				if c.session() == "" {
					writes.Lock()
					c.signIn(demoPassword) // or in the next round, when Kratos is back
					writes.Unlock()
					continue
				}
				session := c.session()
				secrets.Store(session, nil)
				location := c.click(t)
				if location == "/" {
					failed.Add(1)
					continue
				}
				secrets.Store(location, nil)
				if rand.IntN(25) > 0 {
					continue // an impatient user: the browser follows the last click
				}
				retry(t, func() error {
					writes.Lock()
					defer writes.Unlock()
					_, _, err := c.get(location)
					return err
				})
				retry(t, func() error {
					got, err := s.whoami(session)
					if err == nil && got != 401 {
						t.Errorf("whoami after a logout: got %d, want 401", got)
					}
					return err
				})
				ended.Add(1)
			}
		})
	}
	for range kills {
		before := ended.Load()
		waitFor(t, "logouts", func() bool { return ended.Load() >= before+clicks })
		witness := newClient(s)
		retry(t, func() error { _, err := witness.signIn(demoPassword); return err })

		s.kratos.Process.Kill()
		<-s.kratos.ended
		before = failed.Load()
		waitFor(t, "failed logouts", func() bool { return failed.Load() >= before+clicks })
		if page, landed, err := witness.get(fmt.Sprintf("http://localhost:%d/logout", s.AppPort)); err != nil {
			t.Error(err)
		} else if !strings.HasSuffix(landed, "/") || !strings.Contains(page, unknown) {
			t.Errorf("without Kratos, landed on %s, want /, and the page to say that it %s:\n%s", landed, unknown, page)
		}
		if err := s.startKratos(context.Background()); err != nil {
			t.Fatal(err)
		}
		session := witness.session()
		if _, _, err := witness.get(fmt.Sprintf("http://localhost:%d/logout", s.AppPort)); err != nil {
			t.Error(err)
		}
		checkWhoami(t, s, session, 401)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d logouts, %d clicks without Kratos", ended.Load(), failed.Load())

	logged, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(logged, []byte("logout failed")) {
		t.Error("no failed logout is logged")
	}
	secrets.Range(func(secret, _ any) bool {
		_, value, _ := strings.Cut(secret.(string), "=") // of the cookie, or of the logout URL's token
		if bytes.Contains(logged, []byte(value)) {
			t.Error("a session cookie or a logout token is logged")
		}
		return true
	})
}

func TestBrowser(t *testing.T) {
	browser, stop := startBrowser(t)
	defer stop()
	for _, tt := range []struct {
		name string
		test func(*testing.T, context.Context)
	}{
		{"pages", testPages},
		{"signs out", testSignsOut},
		{"does not sign out", testAttacks},
		{"control", testAttacksOnSample},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, browser) })
	}
}

// startBrowser starts a Chromium. It skips the test where there is none, but fails it in CI.
func startBrowser(t *testing.T) (browser context.Context, stop func()) {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		const missing = "no Chromium or Chrome on PATH: install one (Debian: apt install chromium)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which does not work for root
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	browser, _ = chromedp.NewContext(ctx) // ends with ctx
	if err := chromedp.Do(browser); err != nil {
		stop()
		t.Fatal(err)
	}
	return browser, stop
}

// tab is a tab of a browser whose user is signed in.
type tab struct {
	t       *testing.T
	ctx     context.Context
	session string // Kratos's session cookie, as a Cookie header has it
}

// newUser signs a user in, in a browser context of its own: with cookies that no other test sees.
func newUser(t *testing.T, browser context.Context) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	b.signIn()
	return b
}

// signIn signs the user in on the sign-in page.
func (b *tab) signIn() {
	b.t.Helper()
	b.open(fmt.Sprintf("http://localhost:%d/self-service/login/browser", shared.KratosPort))
	b.do(
		chromedp.SendKeys(chromedp.CSS("[name=identifier]"), demoEmail),
		chromedp.SendKeys(chromedp.CSS("[name=password]"), demoPassword),
		chromedp.Click(chromedp.CSS("button")),
	)
	b.waitFor(appURL+"/", signedIn)
	b.session = b.cookie()
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// newTab opens another tab of the same user.
func (b *tab) newTab() *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	return &tab{b.t, ctx, b.session}
}

// open opens url as if the user had typed it.
func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// openHTML opens a page with body on a site, a host of the server of pages.
func (b *tab) openHTML(site, body string) {
	b.t.Helper()
	b.open(site + "/?body=" + url.QueryEscape(body))
}

// click clicks the first link or button.
func (b *tab) click() {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("a, button")))
}

// script runs a script in the page, without a gesture of the user.
func (b *tab) script(js string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](js))
}

// waitFor waits until the page at url shows text.
func (b *tab) waitFor(url, text string) {
	b.t.Helper()
	var got string
	defer func() {
		if b.t.Failed() {
			b.t.Logf("the page:\n%s", got)
		}
	}()
	waitFor(b.t, fmt.Sprintf("%s to say %q", url, text), func() bool {
		page, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`location.href.replace(/flow=.*/, "flow") + "\n" + document.body.innerText`))
		if err == nil {
			got = page
		}
		return strings.HasPrefix(got, url+"\n") && strings.Contains(got, text)
	})
}

// cookie returns the browser's session cookie, as a Cookie header has it, or "" if there is none.
func (b *tab) cookie() string {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{appURL}})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, cookie := range result.Cookies {
		if cookie.Name == "ory_kratos_session" {
			return cookie.Name + "=" + cookie.Value
		}
	}
	return ""
}

// preloads returns a func that returns what Chromium has said by then of the tab's prefetches and prerenders.
func (b *tab) preloads() (said func() string) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, preload.Enable, cdp.Empty{}); err != nil {
		b.t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	add := func(status string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, status)
	}
	if err := chromedp.Listen(b.ctx, func(event any) {
		switch event := event.(type) {
		case *preload.EventPrefetchStatusUpdated:
			add(string(event.PrefetchStatus))
		case *preload.EventPrerenderStatusUpdated:
			add(string(event.PrerenderStatus))
		}
	}); err != nil {
		b.t.Fatal(err)
	}
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(all, " ")
	}
}

// checkSignedOut checks that a logout has done all it should, and that the browser lands on url.
func (b *tab) checkSignedOut(url string) {
	b.t.Helper()
	b.waitFor(url, signedOut)
	checkWhoami(b.t, shared, b.session, 401)
	if got := b.cookie(); got != "" {
		b.t.Errorf("got session cookie %q, want none", got)
	}
}

// checkSignedIn checks that nothing has signed the user out.
func (b *tab) checkSignedIn() {
	b.t.Helper()
	checkWhoami(b.t, shared, b.session, 200)
	if got, want := b.cookie(), b.session; got != want {
		b.t.Errorf("got session cookie %q, want %q", got, want)
	}
}

// waitForVisit waits until there was a visit to url that was answered with status.
func waitForVisit(t *testing.T, url string, status int) {
	t.Helper()
	waitFor(t, fmt.Sprintf("a visit to %s that is answered %d", url, status), func() bool { return visits.status(url) == status })
}

// servePages serves the body of its query on two sites: on localhost, where the app is too, and on 127.0.0.1.
func servePages(t *testing.T) (sameSite, crossSite string) {
	t.Helper()
	port := freePort()
	if err := serve(port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>Page</title><body>"+r.FormValue("body"))
	})); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://localhost:%d", port), fmt.Sprintf("http://127.0.0.1:%d", port)
}

const (
	prefetchRules  = `<script type="speculationrules">{"prefetch":[{"source":"list","urls":["LOGOUT"]}]}</script>`
	prerenderRules = `<script type="speculationrules">{"prerender":[{"source":"list","urls":["LOGOUT"]}]}</script>`
)

func testSignsOut(t *testing.T, browser context.Context) {
	sameSite, crossSite := servePages(t)
	returnTo := func(url_ string) string { return "&return_to=" + url.QueryEscape(url_) }
	allowed, refused := returnTo(appURL+"/?after=logout"), returnTo("https://evil.example/")

	for _, tt := range []struct {
		name string
		act  func(b *tab, logout string)
		want string // where the browser lands
	}{
		{"click on the home page", func(b *tab, _ string) { b.click() }, "/"},
		{"Tab and Enter on the home page", func(b *tab, _ string) { b.do(chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter)) }, "/"},
		{"typed URL", func(b *tab, logout string) { b.open(logout) }, "/"},
		{"link with an allowed return_to", func(b *tab, logout string) {
			b.openHTML(sameSite, `<a href="`+logout+allowed+`">Logout</a>`)
			b.click()
		}, "/?after=logout"},
		{"link with a refused return_to", func(b *tab, logout string) {
			b.openHTML(sameSite, `<a href="`+logout+refused+`">Logout</a>`)
			b.click()
		}, "/"},
		{"script without a gesture", func(b *tab, _ string) { b.script(`location = "/logout"`) }, "/"},
		{"link on a same-site page", func(b *tab, logout string) {
			b.openHTML(sameSite, `<a href="`+logout+`">Logout</a>`)
			b.click()
		}, "/"},
		{"click after a refused prefetch by speculation rules", func(b *tab, logout string) {
			b.openHTML(sameSite, `<a href="`+logout+`">Logout</a>`+strings.ReplaceAll(prefetchRules, "LOGOUT", logout))
			waitForVisit(b.t, logout, 403)
			b.click()
		}, "/"},
		{"click after a refused prefetch by speculation rules of the same origin", func(b *tab, logout string) {
			b.script(`document.querySelector("a").href = "` + logout + `"`)
			b.script("document.body.append(document.createRange().createContextualFragment(`" + strings.ReplaceAll(prefetchRules, "LOGOUT", logout) + "`))")
			waitForVisit(b.t, logout, 403)
			b.click()
		}, "/"},
		{"navigation after a refused link rel=prefetch", func(b *tab, logout string) {
			b.openHTML(sameSite, `<link rel="prefetch" href="`+logout+`">`)
			waitForVisit(b.t, logout, 403)
			b.script(`location = "` + logout + `"`)
		}, "/"},
		{"link on the 403 page that another site's link led to", func(b *tab, logout string) {
			b.openHTML(crossSite, `<a href="`+logout+`">Logout</a>`)
			b.click()
			waitForVisit(b.t, logout, 403)
			b.waitFor(logout, "Logout")
			b.click()
		}, "/"},
		{"link on the 403 page, with an allowed return_to", func(b *tab, logout string) {
			b.openHTML(crossSite, `<a href="`+logout+allowed+`">Logout</a>`)
			b.click()
			waitForVisit(b.t, logout+allowed, 403)
			b.waitFor(logout+allowed, "Logout")
			b.click()
		}, "/?after=logout"},
		{"a second tab that still shows Logout", func(b *tab, _ string) {
			second := b.newTab()
			second.open(appURL)
			second.waitFor(appURL+"/", signedIn)
			b.click()
			b.checkSignedOut(appURL + "/")
			second.click()
			second.checkSignedOut(appURL + "/")
		}, "/"},
		{"the Back button after a logout", func(b *tab, logout string) {
			b.open(appURL + "/?before=logout")
			b.waitFor(appURL+"/?before=logout", signedIn)
			b.click()
			b.checkSignedOut(appURL + "/")
			b.do(chromedp.NavigateBack())
		}, "/?before=logout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newUser(t, browser)
			logout, _ := uniqueLogout(appURL)
			tt.act(b, logout)
			b.checkSignedOut(appURL + tt.want)
		})
	}
}

// Every page is readable on a phone; the screenshots in .bin/screenshots are to be looked at.
func testPages(t *testing.T, browser context.Context) {
	_, crossSite := servePages(t)
	orphan := &stack{AppPort: freePort(), KratosPort: freePort()} // without its Kratos
	if err := orphan.startApp(context.Background(), orphan.AppPort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(orphan.app.stop)
	orphanURL := fmt.Sprintf("http://localhost:%d", orphan.AppPort)
	dir := filepath.Join(".bin", "screenshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := newUser(t, browser)
	for _, page := range []struct {
		name string
		open func()
		url  string
		want string
	}{
		{"signed in", func() { b.open(appURL) }, appURL + "/", signedIn},
		{"unknown", func() { b.open(orphanURL) }, orphanURL + "/", fmt.Sprintf("Ory at http://localhost:%d could not be asked", orphan.KratosPort)},
		{"refused", func() {
			b.openHTML(crossSite, `<a href="`+appURL+`/logout">Kittens</a>`)
			b.click()
		}, appURL + "/logout", "You were not signed out"},
		{"signed out", func() { b.click() }, appURL + "/", signedOut}, // on the page before
		{"sign in", func() { b.click() }, fmt.Sprintf("http://localhost:%d/?flow", shared.SignInPort), "Password"},
	} {
		page.open()
		b.waitFor(page.url, page.want)
		for _, width := range []int64{320, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				b.do(chromedp.EmulateViewport(width, 640))
				if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
					Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
				}); err != nil {
					t.Fatal(err)
				}
				overflow, err := chromedp.Run(b.ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth - innerWidth`))
				if err != nil || overflow > 0 {
					t.Errorf("%s: got a page %d pixels wider than a screen of %d, %v", page.name, overflow, width, err)
				}
				image, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%s, %d, %s.png", page.name, width, scheme)
				if err := os.WriteFile(filepath.Join(dir, name), image, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// attack is a page that tries to sign out a user who is led to it and, at the most, clicks there.
type attack struct {
	kind      string
	crossSite bool   // the page is on another site than the app, or on another port of the same
	body      string // of the page; LOGOUT is the logout URL, COUNT the value of its n
	click     bool
	navigates bool   // the browser leaves the page
	unsent    string // why Chromium does not ask for LOGOUT at all, in its own words
	sample    bool   // Ory's sample signs the user out
}

var attacks = []attack{
	{kind: "link", crossSite: true, body: `<a href="LOGOUT">Kittens</a>`, click: true, navigates: true, sample: true},
	{kind: "form", crossSite: true, body: `<form action="LOGOUT"><input type="hidden" name="n" value="COUNT"><button>Kittens</button></form>`, click: true, navigates: true, sample: true},
	{kind: "script", crossSite: true, body: `<script>location = "LOGOUT"</script>`, navigates: true, sample: true},
	{kind: "meta refresh", crossSite: true, body: `<meta http-equiv="refresh" content="0; url=LOGOUT">`, navigates: true, sample: true},
	{kind: "img", crossSite: true, body: `<img src="LOGOUT">`},
	{kind: "style sheet", crossSite: true, body: `<link rel="stylesheet" href="LOGOUT">`},
	{kind: "iframe", crossSite: true, body: `<iframe src="LOGOUT"></iframe>`},
	{kind: "fetch", crossSite: true, body: `<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`},
	{kind: "link rel=prefetch", crossSite: true, body: `<link rel="prefetch" href="LOGOUT">`},
	{kind: "speculation-rules prefetch", crossSite: true, body: prefetchRules, unsent: string(preload.PrefetchStatusPrefetchNotEligibleUserHasCookies)},
	{kind: "speculation-rules prerender", crossSite: true, body: prerenderRules, unsent: string(preload.PrerenderFinalStatusCrossSiteNavigationInInitialNavigation)},
	{kind: "img", body: `<img src="LOGOUT">`, sample: true},
	{kind: "style sheet", body: `<link rel="stylesheet" href="LOGOUT">`, sample: true},
	{kind: "iframe", body: `<iframe src="LOGOUT"></iframe>`, sample: true},
	{kind: "fetch", body: `<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`, sample: true},
	{kind: "link rel=prefetch", body: `<link rel="prefetch" href="LOGOUT">`, sample: true},
	{kind: "speculation-rules prefetch", body: prefetchRules, sample: true},
	{kind: "speculation-rules prerender", body: prerenderRules, sample: true},
}

// run runs the attack on the logout route of site, from one of two other sites. It returns the status with which
// site has answered, or 0 if Chromium has said that it does not send the request.
func (a attack) run(b *tab, site, sameSite, crossSite string) (status int) {
	b.t.Helper()
	logout, n := uniqueLogout(site)
	page := sameSite
	if a.crossSite {
		page = crossSite
	}
	reasons := b.preloads()
	b.openHTML(page, strings.NewReplacer("LOGOUT", logout, "COUNT", fmt.Sprint(n)).Replace(a.body))
	if a.click {
		b.click()
	}
	waitFor(b.t, "the attack to reach "+logout, func() bool {
		status = visits.status(logout)
		return status != 0 || a.unsent != "" && strings.Contains(reasons(), a.unsent)
	})
	if a.navigates {
		waitFor(b.t, "the next page", func() bool {
			there, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.readyState == "complete" && !location.href.startsWith("`+page+`")`))
			return err == nil && there
		})
	}
	return status
}

func (a attack) name() string {
	name := a.kind + " on a same-site page"
	if a.crossSite {
		name = a.kind + " on another site"
	}
	if a.unsent != "" {
		name += ", which Chromium does not send"
	}
	return name
}

func testAttacks(t *testing.T, browser context.Context) {
	sameSite, crossSite := servePages(t)
	for _, attack := range attacks {
		t.Run(attack.name(), func(t *testing.T) {
			b := newUser(t, browser)
			want := http.StatusForbidden
			if attack.unsent != "" {
				want = 0
			}
			if got := attack.run(b, appURL, sameSite, crossSite); got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			b.checkSignedIn()
			b.open(appURL)
			b.waitFor(appURL+"/", signedIn)
			b.click()
			b.checkSignedOut(appURL + "/")
		})
	}
}

// The control: the same attacks do sign out the user of an app with Ory's sample, so the tests above can see a logout.
func testAttacksOnSample(t *testing.T, browser context.Context) {
	sameSite, crossSite := servePages(t)
	sampleURL := serveSample(t)
	b := newUser(t, browser)
	for _, attack := range attacks {
		t.Run(attack.name(), func(t *testing.T) {
			b.t = t
			if b.session == "" {
				b.signIn()
			}
			if got := attack.run(b, sampleURL, sameSite, crossSite); got != http.StatusSeeOther && attack.unsent == "" {
				t.Errorf("got status %d, want %d", got, http.StatusSeeOther)
			}
			if !attack.sample {
				b.checkSignedIn()
				return
			}
			waitFor(t, "the session to end", func() bool {
				status, err := shared.whoami(b.session)
				return err == nil && status == http.StatusUnauthorized
			})
			b.session = ""
		})
	}
}

// serveSample serves a logout route on another port of localhost that does what Ory's sample does, and no more.
func serveSample(t *testing.T) (sampleURL string) {
	t.Helper()
	port := freePort()
	if err := serve(port, visits.of(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/self-service/logout/browser", shared.KratosPort), nil)
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Cookie", r.Header.Get("Cookie"))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		defer resp.Body.Close()
		var flow struct {
			LogoutURL string `json:"logout_url"`
		}
		json.NewDecoder(resp.Body).Decode(&flow)
		http.Redirect(w, r, cmp.Or(flow.LogoutURL, "/"), http.StatusSeeOther)
	}))); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://localhost:%d", port)
}
