package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	ory "github.com/ory/client-go"
)

// TestMain runs the program itself, in place of its tests, for the tests that start it.
func TestMain(m *testing.M) {
	if os.Getenv("ORY_LOGOUT_TEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// What a user's browser sends, and what Ory answers. No log line may hold any of it.
const (
	sessionCookie = "ory_session=SECRET-COOKIE"
	logoutURL     = "http://ory.example/self-service/logout?token=SECRET-TOKEN&return_to=/%2e%2e/%c3%bcé"
)

// fakeOry is Ory as the app sees it. It fails the test when it is asked what the app may not ask.
type fakeOry struct {
	*httptest.Server
	conns atomic.Int64 // accepted so far
}

func startOry(t testing.TB, answer http.HandlerFunc) *fakeOry {
	t.Helper()
	fake := &fakeOry{}
	fake.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/self-service/logout/browser" && r.URL.Path != "/sessions/whoami" {
			t.Errorf("Ory got %s %s", r.Method, r.URL.Path)
		}
		if got, want := r.Header.Get("Accept"), "application/json"; got != want {
			t.Errorf("Ory got Accept: %s, want %s", got, want)
		}
		answer(w, r)
	}))
	fake.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			fake.conns.Add(1)
		}
	}
	fake.Start()
	t.Cleanup(fake.Close)
	return fake
}

// startApp serves the whole app in front of the Ory at oryURL.
func startApp(t testing.TB, oryURL string) (appURL string) {
	t.Helper()
	app := &App{ory: newOryClient(oryURL)}
	t.Cleanup(app.ory.GetConfig().HTTPClient.CloseIdleConnections)
	return serve(t, newServer(app.routes())).URL
}

// serve starts srv on a free port of the loopback, until the test ends.
func serve(t testing.TB, srv *http.Server) *httptest.Server {
	started := httptest.NewUnstartedServer(nil)
	started.Config = srv
	started.Start()
	t.Cleanup(started.Close)
	return started
}

// reply returns a handler that gives one answer.
func reply(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func flowJSON(logoutURL string) string {
	return `{"logout_token":"SECRET-TOKEN","logout_url":"` + logoutURL + `"}`
}

// kratos answers as Kratos does: 401 without a session, 400 for a return_to that it does not allow.
func kratos(w http.ResponseWriter, r *http.Request) {
	answer := reply(200, "application/json", flowJSON(logoutURL))
	if !strings.Contains(r.Header.Get("Cookie"), sessionCookie) {
		answer = reply(401, "application/json", `{"error":{"code":401,"reason":"No active session was found in this request."}}`)
	} else if returnTo := r.FormValue("return_to"); returnTo != "" && !strings.HasPrefix(returnTo, "http://app.example") {
		answer = reply(400, "application/json", `{"error":{"code":400,"reason":"Requested return_to URL is not allowed."}}`)
	}
	answer(w, r)
}

// notFlow is an answer of Ory, or of what stands in its place, that is no logout URL.
type notFlow struct {
	name       string
	raw        string // what goes over the connection, which then ends
	hangs      bool   // it does not end
	wantStatus int    // that is logged; 0 if there is none
	wantReason string // that is logged; "no usable answer" if empty
}

var notFlows = []notFlow{
	{name: "bad request", raw: rawJSON(400, `{"error":{"reason":"That is wrong."}}`), wantStatus: 400, wantReason: "That is wrong."},
	{name: "forbidden", raw: rawJSON(403, `{"error":{"reason":"Not yours."}}`), wantStatus: 403, wantReason: "Not yours."},
	{name: "rate limited", raw: rawJSON(429, `{"error":{"reason":"Too fast."}}`), wantStatus: 429, wantReason: "Too fast."},
	{name: "broken", raw: rawJSON(500, `{"error":{"reason":"No database."}}`), wantStatus: 500, wantReason: "No database."},
	{name: "gateway's HTML", raw: raw(502, "text/html", "<h1>Bad gateway</h1>"), wantStatus: 502},
	{name: "redirect", raw: "HTTP/1.1 302 Found\r\nLocation: /elsewhere?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n", wantStatus: 302},
	{name: "redirect to no URL", raw: "HTTP/1.1 302 Found\r\nLocation: http://%/?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n"},
	{name: "hangs", hangs: true, wantReason: "context deadline exceeded"},
	{name: "hangs in the body", raw: rawJSON(200, flowJSON(logoutURL))[:150], hangs: true, wantStatus: 200, wantReason: "context deadline exceeded"},
	{name: "hangs up"},
	{name: "hangs up in the body", raw: rawJSON(200, flowJSON(logoutURL))[:150], wantStatus: 200},
	{name: "not HTTP", raw: logoutURL},
	{name: "bad header", raw: "HTTP/1.1 200 OK\r\nSECRET-TOKEN\r\n\r\n"},
	{name: "garbage", raw: rawJSON(200, flowJSON(logoutURL)[1:]), wantStatus: 200},
	{name: "not JSON", raw: raw(200, "text/html", flowJSON(logoutURL)), wantStatus: 200},
	{name: "null", raw: rawJSON(200, "null"), wantStatus: 200},
	{name: "empty body", raw: rawJSON(200, ""), wantStatus: 200},
	{name: "no content", raw: "HTTP/1.1 204 No Content\r\n\r\n", wantStatus: 204},
	{name: "no logout_url", raw: rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), wantStatus: 200},
	{name: "empty logout_url", raw: rawJSON(200, flowJSON("")), wantStatus: 200},
	{name: "relative logout_url", raw: rawJSON(200, flowJSON("/logout?token=SECRET-TOKEN")), wantStatus: 200},
	{name: "logout_url without a host", raw: rawJSON(200, flowJSON("http:///?token=SECRET-TOKEN")), wantStatus: 200},
	{name: "script as logout_url", raw: rawJSON(200, flowJSON("javascript://x/?SECRET-TOKEN")), wantStatus: 200},
	{name: "line break in logout_url", raw: rawJSON(200, flowJSON(logoutURL+`\r\nSet-Cookie: a=b`)), wantStatus: 200},
	{name: "space in logout_url", raw: rawJSON(200, flowJSON(logoutURL+" ")), wantStatus: 200},
}

func raw(status int, contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body)
}

func rawJSON(status int, body string) string { return raw(status, "application/json", body) }

func (n notFlow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, n.raw)
	if n.hangs {
		io.Copy(io.Discard, conn) // until the app gives up
	}
}

func (n notFlow) wantLog() string {
	return fmt.Sprintf("level=ERROR msg=\"logout failed\" status=%d reason=%q", n.wantStatus, cmp.Or(n.wantReason, "no usable answer"))
}

func TestLogout(t *testing.T) {
	user := http.Header{"Cookie": {sessionCookie}}
	with := func(key, value string) http.Header {
		h := user.Clone()
		h.Set(key, value)
		return h
	}
	type test struct {
		name         string
		method       string // GET if empty
		query        string
		header       http.Header
		answer       http.HandlerFunc // kratos if nil
		wantStatus   int
		wantLocation string
		wantAsked    []string // the query of each request to Ory
		wantLog      string
	}
	const (
		allowed = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
		refused = "return_to=https%3A%2F%2Fevil.example"
		warning = `level=WARN msg="return_to refused" status=400 reason="Requested return_to URL is not allowed."` + "\n"
	)
	tests := []test{
		{name: "session", header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}},
		{name: "allowed return_to", query: allowed, header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{allowed}},
		{name: "empty return_to", query: "return_to=", header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}},
		{name: "refused return_to", query: refused, header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{refused, ""}, wantLog: warning},
		{name: "refused return_to, then an error", query: refused, header: user, wantStatus: 303, wantLocation: "/", wantAsked: []string{refused, ""},
			answer: func(w http.ResponseWriter, r *http.Request) {
				if r.FormValue("return_to") == "" {
					http.Error(w, "", 500)
				} else {
					kratos(w, r)
				}
			}, wantLog: warning + `level=ERROR msg="logout failed" status=500 reason="no usable answer"`},
		{name: "no Cookie header", query: allowed, wantStatus: 303, wantLocation: "/"},
		{name: "empty Cookie header", header: http.Header{"Cookie": {""}}, wantStatus: 303, wantLocation: "/"},
		{name: "no session", header: http.Header{"Cookie": {"theme=dark"}}, wantStatus: 303, wantLocation: "/", wantAsked: []string{""},
			wantLog: `level=INFO msg="logout failed" status=401 reason="No active session was found in this request."`},
		{name: "HEAD", method: "HEAD", header: user, wantStatus: 405},
		{name: "POST", method: "POST", header: user, wantStatus: 405},
		{name: "OPTIONS", method: "OPTIONS", header: user, wantStatus: 405},
		{name: "from another site", header: with("Sec-Fetch-Site", "cross-site"), wantStatus: 403},
		{name: "prefetch", header: with("Sec-Purpose", "prefetch"), wantStatus: 403},
		{name: "prerender", header: with("Sec-Purpose", "prefetch;prerender"), wantStatus: 403},
		{name: "prefetch, older", header: with("Purpose", "prefetch"), wantStatus: 403},
		{name: "prefetch, oldest", header: with("X-Moz", "prefetch"), wantStatus: 403},
	}
	for _, site := range []string{"none", "same-origin", "same-site"} {
		tests = append(tests, test{name: "from " + site, header: with("Sec-Fetch-Site", site), wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}})
	}
	tests = append(tests, test{name: "to document", header: with("Sec-Fetch-Dest", "document"), wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}})
	for _, dest := range []string{"empty", "image", "style", "script", "iframe", "frame", "embed", "object"} {
		tests = append(tests, test{name: "to " + dest, header: with("Sec-Fetch-Dest", dest), wantStatus: 403})
	}
	for _, bad := range notFlows {
		tests = append(tests, test{name: bad.name, header: user, answer: bad.ServeHTTP, wantStatus: 303, wantLocation: "/", wantAsked: []string{""}, wantLog: bad.wantLog()})
	}

	shortenOryTimeout(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := captureLog(t)
			var mu sync.Mutex
			var asked []string
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				asked = append(asked, r.URL.RawQuery)
				mu.Unlock()
				if got, want := r.Header["Cookie"], tt.header["Cookie"]; !slices.Equal(got, want) {
					t.Errorf("Ory got Cookie: %q, want %q", got, want)
				}
				if tt.answer == nil {
					kratos(w, r)
				} else {
					tt.answer(w, r)
				}
			})
			resp, body := do(t, tt.method, startApp(t, fake.URL)+"/logout?"+tt.query, tt.header)

			if resp.StatusCode != tt.wantStatus {
				t.Errorf("got status %d, want %d", resp.StatusCode, tt.wantStatus)
			}
			if got := resp.Header.Get("Location"); got != tt.wantLocation {
				t.Errorf("got Location %q, want %q", got, tt.wantLocation)
			}
			if got, want := resp.Header.Get("Cache-Control"), "no-store"; got != want {
				t.Errorf("got Cache-Control %q, want %q", got, want)
			}
			if got, want := resp.Header.Get("Allow"), map[int]string{405: "GET"}[tt.wantStatus]; got != want {
				t.Errorf("got Allow %q, want %q", got, want)
			}
			if tt.wantStatus == 403 && !strings.Contains(body, `>Logout</a>`) {
				t.Errorf("got a page without a Logout link:\n%s", body)
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(asked, tt.wantAsked) {
				t.Errorf("Ory was asked %q, want %q", asked, tt.wantAsked)
			}
			if got, want := log.String(), strings.TrimSpace(tt.wantLog); strings.TrimSpace(got) != want {
				t.Errorf("got log\n%s\nwant\n%s", got, want)
			}
			if strings.Contains(log.String(), "SECRET") {
				t.Errorf("a secret is logged:\n%s", log)
			}
		})
	}
}

// A proxy may split one Cookie header into several; Ory must get one.
func TestLogoutSplitCookie(t *testing.T) {
	fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Header["Cookie"], []string{"theme=dark; " + sessionCookie}; !slices.Equal(got, want) {
			t.Errorf("Ory got Cookie: %q, want %q", got, want)
		}
		kratos(w, r)
	})
	resp, _ := do(t, "GET", startApp(t, fake.URL)+"/logout", http.Header{"Cookie": {"theme=dark", sessionCookie}})
	if got, want := resp.Header.Get("Location"), logoutURL; got != want {
		t.Errorf("got Location %q, want %q", got, want)
	}
}

func TestLogoutOryDown(t *testing.T) {
	log := captureLog(t)
	fake := startOry(t, kratos)
	fake.Close()
	resp, _ := do(t, "GET", startApp(t, fake.URL)+"/logout", http.Header{"Cookie": {sessionCookie}})
	if got, want := resp.Header.Get("Location"), "/"; resp.StatusCode != 303 || got != want {
		t.Errorf("got %d to %q, want 303 to %q", resp.StatusCode, got, want)
	}
	if got, want := log.String(), "level=ERROR msg=\"logout failed\" status=0 reason=\"dial tcp "; !strings.HasPrefix(got, want) {
		t.Errorf("got log %q, want it to begin with %q", got, want)
	}
}

// A certificate that is not trusted is a usual mistake with one's own Ory; the log must name it.
func TestLogoutUntrustedOry(t *testing.T) {
	log := captureLog(t)
	fake := httptest.NewTLSServer(http.HandlerFunc(kratos))
	t.Cleanup(fake.Close)
	do(t, "GET", startApp(t, fake.URL)+"/logout", http.Header{"Cookie": {sessionCookie}})
	if got, want := log.String(), `level=ERROR msg="logout failed" status=0 reason="tls: failed to verify certificate: `; !strings.HasPrefix(got, want) {
		t.Errorf("got log %q, want it to begin with %q", got, want)
	}
}

// A double click makes the browser give up the first request: no error of Ory's or ours.
func TestLogoutBrowserGone(t *testing.T) {
	log := captureLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
		close(gone)
	})
	req, _ := http.NewRequestWithContext(ctx, "GET", startApp(t, fake.URL)+"/logout", nil)
	req.Header.Set("Cookie", sessionCookie)
	if _, err := http.DefaultTransport.RoundTrip(req); err == nil {
		t.Error("got an answer, want none")
	}
	<-gone
	want := `level=INFO msg="logout failed" status=0 reason="the browser went away"` + "\n"
	waitFor(t, "the log line", func() bool { return log.String() != "" })
	if got := log.String(); got != want {
		t.Errorf("got log %q, want %q", got, want)
	}
}

func TestHome(t *testing.T) {
	user := http.Header{"Cookie": {sessionCookie}}
	const signedIn, signedOut, unknown = "You are signed in.", "You are signed out.", "could not be asked"
	type test struct {
		name   string
		header http.Header
		answer http.HandlerFunc
		want   string
	}
	tests := []test{
		{"no cookie", nil, nil, signedOut},
		{"no session", user, reply(401, "application/json", `{"error":{"reason":"No active session was found in this request."}}`), signedOut},
		{"session", user, reply(200, "application/json", `{"id":"1","active":true,"identity":{"id":"2","schema_id":"","schema_url":"","traits":{}}}`), signedIn},
		{"second factor missing", user, reply(403, "application/json", `{"error":{"reason":"Second factor missing."}}`), unknown},
		{"XHTML, which client-go takes for a session", user, reply(200, "application/xhtml+xml", `<html></html>`), unknown},
	}
	for _, bad := range notFlows {
		tests = append(tests, test{bad.name, user, bad.ServeHTTP, unknown})
	}
	shortenOryTimeout(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := captureLog(t)
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				if got, want := r.URL.Path, "/sessions/whoami"; got != want {
					t.Errorf("Ory was asked %s, want %s", got, want)
				}
				if got, want := r.Header["Cookie"], tt.header["Cookie"]; !slices.Equal(got, want) {
					t.Errorf("Ory got Cookie: %q, want %q", got, want)
				}
				tt.answer(w, r)
			})
			resp, body := do(t, "GET", startApp(t, fake.URL+"/")+"/", tt.header)

			if got, want := resp.StatusCode, 200; got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			if got, want := resp.Header.Get("Cache-Control"), "no-store"; got != want {
				t.Errorf("got Cache-Control %q, want %q", got, want)
			}
			wantText, wantLink, wantLog := tt.want, `<a href="/logout">Logout</a>`, ""
			switch tt.want {
			case signedOut:
				wantLink = `<a href="` + fake.URL + `/self-service/login/browser">Sign in</a>`
			case unknown:
				wantText, wantLog = "Ory at "+fake.URL+" could not be asked", "level=ERROR"
			}
			for _, want := range []string{wantText, wantLink} {
				if !strings.Contains(body, want) {
					t.Errorf("got a page without %q:\n%s", want, body)
				}
			}
			if strings.Count(body, "<a ") != 1 {
				t.Errorf("got a page with more than one link:\n%s", body)
			}
			if got := log.String(); !strings.HasPrefix(got, wantLog) || (got == "") != (wantLog == "") || strings.Contains(got, "SECRET") {
				t.Errorf("got log %q, want %q", got, wantLog)
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	tests := []struct {
		method, path string
		want         int
	}{
		{"GET", "/", 200},
		{"HEAD", "/", 200},
		{"POST", "/", 405},
		{"GET", "/logout", 303},
		{"GET", "/logout/", 404},
		{"GET", "/index.html", 404},
	}
	appURL := startApp(t, startOry(t, kratos).URL)
	for _, tt := range tests {
		if resp, _ := do(t, tt.method, appURL+tt.path, nil); resp.StatusCode != tt.want {
			t.Errorf("%s %s: got status %d, want %d", tt.method, tt.path, resp.StatusCode, tt.want)
		}
	}
}

// A connection to Ory is kept for every logout that was under way at once.
func TestConnectionsToOry(t *testing.T) {
	const clients, rounds = 256, 5
	var arrived atomic.Int64
	release := make(chan struct{}, clients)
	fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
		if arrived.Add(1)%clients == 0 {
			for range clients {
				release <- struct{}{}
			}
		}
		<-release
		kratos(w, r)
	})
	appURL := startApp(t, fake.URL)
	for range rounds {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() { do(t, "GET", appURL+"/logout", http.Header{"Cookie": {sessionCookie}}) })
		}
		wg.Wait()
	}
	// In a later round, a request may find the last round's connections not yet back in the pool.
	if got, limit := fake.conns.Load(), int64(clients*5/4); got > limit {
		t.Errorf("got %d connections for %d rounds of %d logouts at once, want at most %d", got, rounds, clients, limit)
	}
}

// An HTTP/2 connection to Ory that is dead without being closed, as behind a router that has forgotten it, is given up.
func TestDeadHTTP2Connection(t *testing.T) {
	shortenOryTimeout(t)
	captureLog(t)
	fake := httptest.NewUnstartedServer(http.HandlerFunc(kratos))
	fake.EnableHTTP2 = true
	fake.StartTLS()
	t.Cleanup(fake.Close)

	app := &App{ory: newOryClient(fake.URL)}
	transport := app.ory.GetConfig().HTTPClient.Transport.(*http.Transport)
	transport.TLSClientConfig = fake.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	var dials atomic.Int64
	var dead atomic.Bool
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := net.Dial(network, addr)
		if dials.Add(1) == 1 {
			return &mortalConn{conn, &dead}, err
		}
		return conn, err
	}
	location := func() string {
		r := httptest.NewRequest("GET", "/logout", nil)
		r.Header.Set("Cookie", sessionCookie)
		w := httptest.NewRecorder()
		app.routes().ServeHTTP(w, r)
		return w.Header().Get("Location")
	}
	if got := location(); got != logoutURL {
		t.Fatalf("got Location %q, want %q", got, logoutURL)
	}
	dead.Store(true)
	if got := location(); got != "/" {
		t.Fatalf("got Location %q, want /", got)
	}
	waitFor(t, "a new connection", func() bool { return location() == logoutURL })
}

// mortalConn is a connection that sends nothing any more once it is dead.
type mortalConn struct {
	net.Conn
	dead *atomic.Bool
}

func (c *mortalConn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// A logout that takes as long as it may must not run into a limit of the server.
func TestServerTimeouts(t *testing.T) {
	srv := newServer(nil)
	for name, got := range map[string]time.Duration{
		"ReadHeaderTimeout": srv.ReadHeaderTimeout,
		"ReadTimeout":       srv.ReadTimeout,
		"WriteTimeout":      srv.WriteTimeout,
		"IdleTimeout":       srv.IdleTimeout,
	} {
		if got <= 5*time.Second {
			t.Errorf("%s: got %v, want more than 5s", name, got)
		}
	}
	if oryTimeout >= 5*time.Second {
		t.Errorf("oryTimeout: got %v, want less than 5s", oryTimeout)
	}
}

// Clients that send half a header do not stop a logout, and are cut off.
func TestSlowClients(t *testing.T) {
	const clients = 2000
	app := &App{ory: newOryClient(startOry(t, kratos).URL)}
	config := newServer(app.routes())
	config.ReadHeaderTimeout = 2 * time.Second
	srv := serve(t, config)

	var conns []net.Conn
	for range clients {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "GET /logout HTTP/1.1\r\nHost: localhost\r\nCoo")
		conns = append(conns, conn)
	}
	resp, _ := do(t, "GET", srv.URL+"/logout", http.Header{"Cookie": {sessionCookie}})
	if got, want := resp.Header.Get("Location"), logoutURL; got != want {
		t.Errorf("got Location %q, want %q", got, want)
	}
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatalf("a slow client's connection: got %v, want it closed", err)
		}
	}
}

func TestConfigurationErrors(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())

	for _, tt := range []struct{ name, variable, value string }{
		{"port is taken", "PORT", takenPort},
		{"port is no number", "PORT", "abc"},
		{"port is too large", "PORT", "65536"},
		{"port is negative", "PORT", "-1"},
		{"port is an address", "PORT", "localhost:3000"},
		{"Ory without a scheme", "ORY_SDK_URL", "localhost:4000"},
		{"Ory without a host", "ORY_SDK_URL", "http://:4000"},
		{"Ory is a path", "ORY_SDK_URL", "/ory"},
		{"Ory by another protocol", "ORY_SDK_URL", "ftp://localhost:4000"},
		{"Ory is no URL", "ORY_SDK_URL", "http://local host"},
		{"Ory with a query", "ORY_SDK_URL", "http://localhost:4000/?a=b"},
		{"Ory with a password", "ORY_SDK_URL", "http://user:SECRET@localhost:4000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := program("PORT=0", tt.variable+"="+tt.value)
			defer time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }).Stop() // if it does not end by itself
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			if got, want := cmd.ProcessState.ExitCode(), 1; got != want {
				t.Errorf("got exit code %d (%v), want %d", got, err, want)
			}
			if got, want := stderr.String(), "ory-logout: "+tt.variable+" is not "; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
				t.Errorf("got stderr %q, want one line that begins with %q", got, want)
			}
		})
	}
}

// A stop lets a logout that is under way finish, and no new one begin.
func TestStop(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			asked, release := make(chan struct{}), make(chan struct{})
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				<-release
				kratos(w, r)
			})
			cmd, appURL := startProgram(t, fake.URL)

			location := make(chan string)
			go func() {
				resp, _ := do(t, "GET", appURL+"/logout", http.Header{"Cookie": {sessionCookie}})
				location <- resp.Header.Get("Location")
			}()
			<-asked
			cmd.Process.Signal(sig)
			waitFor(t, "the port to close", func() bool {
				conn, err := net.Dial("tcp", strings.TrimPrefix(appURL, "http://"))
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			close(release)
			if got, want := <-location, logoutURL; got != want {
				t.Errorf("got Location %q, want %q", got, want)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("got %v, want exit code 0", err)
			}
		})
	}
}

// A stop under load answers every logout that the program has accepted.
func TestStopUnderLoad(t *testing.T) {
	const clients, logouts = 64, 2000
	var accepted, answered sync.Map // by the client's cookie
	var count atomic.Int64
	fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
		accepted.Store(r.Header.Get("Cookie"), nil)
		count.Add(1)
		kratos(w, r)
	})
	cmd, appURL := startProgram(t, fake.URL)

	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for n := 0; ; n++ {
				cookie := fmt.Sprintf("%s; client=%d; n=%d", sessionCookie, client, n)
				req, _ := http.NewRequest("GET", appURL+"/logout", nil)
				req.Header.Set("Cookie", cookie)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					return // the program has stopped
				}
				resp.Body.Close()
				if got := resp.Header.Get("Location"); resp.StatusCode != 303 || got != logoutURL {
					t.Errorf("got %d to %q, want 303 to %q", resp.StatusCode, got, logoutURL)
				}
				answered.Store(cookie, nil)
			}
		})
	}
	waitFor(t, "the load", func() bool { return count.Load() >= logouts })
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, want exit code 0", err)
	}
	wg.Wait()
	accepted.Range(func(cookie, _ any) bool {
		if _, ok := answered.Load(cookie); !ok {
			t.Errorf("no answer to the logout with %s", cookie)
		}
		return true
	})
}

// logout.go stands on its own: the rest of an app that uses it is as little as this.
func TestCopy(t *testing.T) {
	const rest = `package main

import (
	"net/http"

	ory "github.com/ory/client-go"
)

type App struct{ ory *ory.APIClient }

func main() {
	app := &App{ory: newOryClient("http://localhost:4000")}
	http.HandleFunc("/logout", app.logoutHandler)
	http.ListenAndServe("localhost:8080", nil)
}
`
	dir := t.TempDir()
	for _, name := range []string{"logout.go", "go.mod", "go.sum"} {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), content)
	}
	writeFile(t, filepath.Join(dir, "main.go"), []byte(rest))
	cmd := exec.Command("go", "vet", ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// sampleHandler does what Ory's sample does, with its client: net/http's default.
func sampleHandler(oryURL string) http.Handler {
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: oryURL}}
	client := ory.NewAPIClient(cfg)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flow, _, err := client.FrontendAPI.CreateBrowserLogoutFlow(r.Context()).Cookie(r.Header.Get("Cookie")).Execute()
		if err != nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		http.Redirect(w, r, flow.LogoutUrl, http.StatusSeeOther)
	})
}

// proxyHandler hands every request on to Ory: the least that one hop to Ory costs.
func proxyHandler(oryURL string) http.Handler {
	target, err := url.Parse(oryURL + "/self-service/logout/browser")
	if err != nil {
		panic(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, math.MaxInt
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = target
			r.Out.Header.Set("Accept", "application/json")
		},
	}
}

// BenchmarkLogout compares the app with a bare reverse proxy and with Ory's sample, in front of the same Ory. It runs
// the three in turn, several times, and reports the ratios of their medians: app/proxy and app/sample of requests per
// second. conns/1000 are the connections that Ory had to accept, allocs/op those of the whole process.
func BenchmarkLogout(b *testing.B) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
		for _, clients := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("delay=%v/clients=%d", delay, clients), func(b *testing.B) {
				benchmarkLogout(b, delay, clients)
			})
		}
	}
}

func benchmarkLogout(b *testing.B, delay time.Duration, clients int) {
	const rounds = 7
	fake := startOry(b, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		kratos(w, r)
	})
	type contestant struct {
		name, addr string
		want       int // status
		rates      []float64
		connsPerOp []float64
		allocs     []float64
	}
	contestants := []*contestant{{name: "app", want: 303}, {name: "proxy", want: 200}, {name: "sample", want: 303}}
	for i, handler := range []http.Handler{
		(&App{ory: newOryClient(fake.URL)}).routes(), proxyHandler(fake.URL), sampleHandler(fake.URL),
	} {
		contestants[i].addr = serve(b, newServer(handler)).Listener.Addr().String()
	}
	n := max(b.N, 20*clients)
	run := func(c *contestant, n int) {
		load(b, c.addr, clients, n, func(resp *http.Response) error {
			if resp.StatusCode != c.want || resp.Header.Get("Location") == "/" {
				return fmt.Errorf("%s: got %d to %q", c.name, resp.StatusCode, resp.Header.Get("Location"))
			}
			return nil
		})
	}
	for _, c := range contestants {
		run(c, 2*clients) // opens the connections
	}
	b.ResetTimer()
	for range rounds {
		for _, c := range contestants {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			conns, start := fake.conns.Load(), time.Now()
			run(c, n)
			c.rates = append(c.rates, float64(n)/time.Since(start).Seconds())
			c.connsPerOp = append(c.connsPerOp, float64(fake.conns.Load()-conns)/float64(n))
			runtime.ReadMemStats(&after)
			c.allocs = append(c.allocs, float64(after.Mallocs-before.Mallocs)/float64(n))
		}
	}
	app, proxy, sample := contestants[0], contestants[1], contestants[2]
	b.ReportMetric(0, "ns/op") // of all three together
	b.ReportMetric(median(app.rates)/median(proxy.rates), "app/proxy")
	b.ReportMetric(median(app.rates)/median(sample.rates), "app/sample")
	for _, c := range contestants {
		b.ReportMetric(median(c.rates), c.name+"-req/s")
		b.ReportMetric(median(c.allocs), c.name+"-allocs/op")
		b.ReportMetric(1000*median(c.connsPerOp), c.name+"-conns/1000")
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// BenchmarkSoak fails if memory or goroutines grow with the logouts, a fifth of which fails in one of the ways of
// notFlows. For a verdict that counts: go test -run '^$' -bench Soak -benchtime 200000x
func BenchmarkSoak(b *testing.B) {
	const clients = 256
	shortenOryTimeout(b)
	logTo(io.Discard)
	b.Cleanup(func() { logTo(os.Stderr) })

	var count, hanging atomic.Int64
	fake := startOry(b, func(w http.ResponseWriter, r *http.Request) {
		answer := kratos
		if n := int(count.Add(1)); n%5 == 0 {
			if bad := notFlows[n/5%len(notFlows)]; !bad.hangs || hanging.Load() > 0 {
				answer = bad.ServeHTTP
			}
		}
		answer(w, r)
	})
	app := &App{ory: newOryClient(fake.URL)}
	srv := serve(b, newServer(app.routes()))

	goroutines := runtime.NumGoroutine()
	run := func(n int) (heap uint64) {
		var signedOut atomic.Int64
		load(b, srv.Listener.Addr().String(), clients, n, func(resp *http.Response) error {
			switch location := resp.Header.Get("Location"); {
			case resp.StatusCode != 303 || location != logoutURL && location != "/":
				return fmt.Errorf("got %d to %q", resp.StatusCode, location)
			case location == logoutURL:
				signedOut.Add(1)
			}
			return nil
		})
		if got, want := signedOut.Load(), int64(n/5*4-clients); got < want && hanging.Load() == 0 {
			b.Errorf("got %d logout URLs for %d logouts, want at least %d", got, n, want)
		}
		app.ory.GetConfig().HTTPClient.CloseIdleConnections()
		waitFor(b, fmt.Sprintf("%d goroutines to be %d", runtime.NumGoroutine(), goroutines), func() bool {
			return runtime.NumGoroutine() <= goroutines
		})
		runtime.GC()
		runtime.GC() // empties the pools
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	// A timer that outlives its request must show in the first half, an answer that never comes in the second.
	for _, half := range []struct {
		timeout time.Duration
		hanging int64
	}{{time.Minute, 0}, {50 * time.Millisecond, 1}} {
		oryTimeout = half.timeout
		hanging.Store(half.hanging)
		warm := run(max(b.N/20, clients))
		heap := run(b.N / 2)
		if b.N >= 10000 && heap > warm*12/10 {
			b.Errorf("got a live heap of %d bytes after %d logouts, %d before", heap, b.N/2, warm)
		}
		b.ReportMetric(float64(heap)/float64(warm), fmt.Sprintf("heap-growth-timeout=%v", half.timeout))
	}
}

// FuzzLogout checks that, whatever Ory and the browser send, the answer is one of three, and the log holds no secret.
func FuzzLogout(f *testing.F) {
	for _, bad := range notFlows {
		f.Add(bad.raw, "a=b", "", "", "", "")
	}
	good := rawJSON(200, flowJSON(logoutURL))
	f.Add(good+"more than it announced: SECRET-TOKEN", "a=b", "", "", "", "")
	for _, seed := range [][5]string{ // cookie, query, site, dest, purpose
		{},
		{"a=b", "return_to=https%3A%2F%2Fevil.example", "none", "document", ""},
		{"a=b", "return_to=%0d%0a;&&=", "same-origin", "document", ""},
		{"a=b", "", "cross-site", "document", ""},
		{"a=b", "", "same-site", "image", ""},
		{"a=b", "", "same-origin", "document", "prefetch;prerender"},
	} {
		f.Add(good, seed[0], seed[1], seed[2], seed[3], seed[4])
		f.Add(rawJSON(400, `{"error":{"reason":"Requested return_to URL is not allowed."}}`), seed[0], seed[1], seed[2], seed[3], seed[4])
	}

	// A pipe in place of a TCP connection is faster, and does not run out of ports.
	var answer atomic.Pointer[string]
	var asked atomic.Int64
	dial := func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			if _, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
				asked.Add(1)
				io.WriteString(server, *answer.Load())
			}
		}()
		return client, nil
	}
	app := &App{ory: newOryClient("http://ory.example")}
	client := app.ory.GetConfig().HTTPClient
	client.Transport.(*http.Transport).DialContext = dial
	routes := app.routes()
	log := captureLog(f)

	f.Fuzz(func(t *testing.T, raw, cookie, query, site, dest, purpose string) {
		// Nothing that the fuzzer can have put elsewhere. The length stays, for the sake of Content-Length.
		secret, token := rand.Text(), rand.Text()[:len("SECRET-TOKEN")]
		raw = strings.ReplaceAll(raw, "SECRET-TOKEN", token)
		answer.Store(&raw)
		asked.Store(0)
		log.Reset()

		r := httptest.NewRequest("GET", "/logout", nil)
		r.URL.RawQuery = query
		for key, value := range map[string]string{"Sec-Fetch-Site": site, "Sec-Fetch-Dest": dest, "Sec-Purpose": purpose} {
			r.Header.Set(key, value)
		}
		if cookie != "" {
			r.Header.Set("Cookie", "ory_session="+secret+"; "+cookie)
		}
		w := httptest.NewRecorder()
		start := time.Now()
		routes.ServeHTTP(w, r)
		if took := time.Since(start); took > oryTimeout {
			t.Errorf("got an answer after %v", took)
		}

		location := w.Header().Get("Location")
		isUsers := site != "cross-site" && (dest == "" || dest == "document") && purpose == ""
		switch {
		case !isUsers:
			if w.Code != http.StatusForbidden || location != "" || asked.Load() > 0 {
				t.Errorf("got %d to %q, and Ory asked %d times, want 403", w.Code, location, asked.Load())
			}
		case w.Code != http.StatusSeeOther:
			t.Errorf("got %d, want 303", w.Code)
		case location != "/":
			// What net/http makes of Ory's answer, as the app's client does.
			resp, err := client.Get("http://ory.example")
			if err != nil {
				t.Fatalf("got Location %q for no answer: %v", location, err)
			}
			defer resp.Body.Close()
			var flow struct {
				LogoutURL string `json:"logout_url"`
			}
			if err := json.NewDecoder(resp.Body).Decode(&flow); err != nil || resp.StatusCode >= 300 || location != flow.LogoutURL {
				t.Errorf("got Location %q, want %q (%d, %v)", location, flow.LogoutURL, resp.StatusCode, err)
			}
		}
		for key, values := range w.Header() {
			if strings.ContainsAny(key+strings.Join(values, ""), "\r\n") {
				t.Errorf("got a line break in %s: %q", key, values)
			}
		}
		// Ory's own reason is logged, token and all if it should hold one.
		ownReason := strings.Contains(strings.ToLower(raw), "reason")
		if log := log.String(); strings.Contains(log, secret) || strings.Contains(log, token) && !ownReason {
			t.Errorf("a secret is logged:\n%s", log)
		}
	})
}

// load sends n logouts to a server at addr, over as many connections as there are clients, and passes the answers to
// check. It does little else, so that it is the server that is measured.
func load(tb testing.TB, addr string, clients, n int, check func(*http.Response) error) {
	const request = "GET /logout HTTP/1.1\r\nHost: localhost\r\nCookie: " + sessionCookie + "\r\n\r\n"
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				tb.Error(err)
				return
			}
			defer conn.Close()
			for answers := bufio.NewReader(conn); left.Add(-1) >= 0; {
				io.WriteString(conn, request)
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					tb.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err := check(resp); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// do sends a request and returns its answer, a redirect included, with its body.
func do(t testing.TB, method, url string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, string(body)
}

// program returns a command that runs the app's main.
func program(env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "ORY_LOGOUT_TEST_MAIN=1")...)
	return cmd
}

// startProgram starts the app's main on a free port.
func startProgram(t *testing.T, oryURL string) (cmd *exec.Cmd, appURL string) {
	t.Helper()
	cmd = program("PORT=0", "ORY_SDK_URL="+oryURL)
	stderr := &syncBuffer{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	listening := regexp.MustCompile(`url=(http://localhost:\d+) `)
	waitFor(t, "the program to listen", func() bool { return listening.MatchString(stderr.String()) })
	return cmd, listening.FindStringSubmatch(stderr.String())[1]
}

// shortenOryTimeout lets Ory hang for less than the app allows, until the test ends.
func shortenOryTimeout(t testing.TB) {
	before := oryTimeout
	oryTimeout = 200 * time.Millisecond
	t.Cleanup(func() { oryTimeout = before })
}

// captureLog returns what the app logs until the test ends.
func captureLog(t testing.TB) *syncBuffer {
	log := &syncBuffer{}
	logTo(log)
	t.Cleanup(func() { logTo(os.Stderr) })
	return log
}

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written, without the time of slog's lines.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return logTime.ReplaceAllString(b.buf.String(), "")
}

var logTime = regexp.MustCompile(`(?m)^time=\S+ `)

func (b *syncBuffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
