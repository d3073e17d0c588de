package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
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
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = newServer(app.routes())
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(app.ory.GetConfig().HTTPClient.CloseIdleConnections)
	return srv.URL
}

// reply returns a handler that gives one answer.
func reply(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// replyRaw returns a handler that sends what need not be HTTP, and hangs up.
func replyRaw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, answer)
		conn.Close()
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

// notFlows is every kind of answer that is no logout URL, and what is logged of it.
var notFlows = []struct {
	name   string
	answer http.HandlerFunc
	log    string
}{
	{"bad request", reply(400, "application/json", `{"error":{"reason":"That is wrong."}}`), `level=ERROR msg="logout failed" status=400 reason="That is wrong."`},
	{"forbidden", reply(403, "application/json", `{"error":{"reason":"Not yours."}}`), `level=ERROR msg="logout failed" status=403 reason="Not yours."`},
	{"rate limited", reply(429, "application/json", `{"error":{"reason":"Too fast."}}`), `level=ERROR msg="logout failed" status=429 reason="Too fast."`},
	{"broken", reply(500, "application/json", `{"error":{"reason":"No database."}}`), `level=ERROR msg="logout failed" status=500 reason="No database."`},
	{"gateway's HTML", reply(502, "text/html", `<h1>Bad gateway</h1>`), `level=ERROR msg="logout failed" status=502 reason="no usable answer"`},
	{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 302) }, `level=ERROR msg="logout failed" status=302 reason="no usable answer"`},
	{"redirect to no URL", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://%/?token=SECRET-TOKEN")
		w.WriteHeader(303)
	}, `level=ERROR msg="logout failed" status=0 reason="no usable answer"`},
	{"hangs", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, `level=ERROR msg="logout failed" status=0 reason="context deadline exceeded"`},
	{"hangs in the body", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"logout_token":`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, `level=ERROR msg="logout failed" status=200 reason="context deadline exceeded"`},
	{"hangs up", replyRaw(""), `level=ERROR msg="logout failed" status=0 reason="no usable answer"`},
	{"hangs up in the body", replyRaw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"not HTTP", replyRaw(logoutURL), `level=ERROR msg="logout failed" status=0 reason="no usable answer"`},
	{"bad header", replyRaw("HTTP/1.1 200 OK\r\nSECRET-TOKEN\r\n\r\n"), `level=ERROR msg="logout failed" status=0 reason="no usable answer"`},
	{"garbage", reply(200, "application/json", flowJSON(logoutURL)[1:]), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"a page", reply(200, "text/html", flowJSON(logoutURL)), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"null", reply(200, "application/json", `null`), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"empty body", reply(200, "application/json", ""), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"no content", reply(204, "application/json", ""), `level=ERROR msg="logout failed" status=204 reason="no usable answer"`},
	{"no logout_url", reply(200, "application/json", `{"logout_token":"SECRET-TOKEN"}`), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"empty logout_url", reply(200, "application/json", flowJSON("")), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"relative logout_url", reply(200, "application/json", flowJSON("/logout?token=SECRET-TOKEN")), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"logout_url without a host", reply(200, "application/json", flowJSON("http:///?token=SECRET-TOKEN")), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"script as logout_url", reply(200, "application/json", flowJSON("javascript://x/?SECRET-TOKEN")), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"logout_url with a line break", reply(200, "application/json", flowJSON(logoutURL+`\r\nSet-Cookie: a=b`)), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
	{"logout_url that ends in a space", reply(200, "application/json", flowJSON(logoutURL+` `)), `level=ERROR msg="logout failed" status=200 reason="no usable answer"`},
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
		tests = append(tests, test{name: bad.name, header: user, answer: bad.answer, wantStatus: 303, wantLocation: "/", wantAsked: []string{""}, wantLog: bad.log})
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
		tests = append(tests, test{bad.name, user, bad.answer, unknown})
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

// A logout that takes as long as it may must not run into a limit of the server,
// not even if the browser has used up all its time for the header.
func TestServerTimeouts(t *testing.T) {
	srv := newServer(nil)
	for name, got := range map[string]time.Duration{
		"ReadHeaderTimeout":                  srv.ReadHeaderTimeout,
		"ReadTimeout less ReadHeaderTimeout": srv.ReadTimeout - srv.ReadHeaderTimeout,
		"WriteTimeout":                       srv.WriteTimeout,
		"IdleTimeout":                        srv.IdleTimeout,
	} {
		if got <= oryTimeout {
			t.Errorf("%s: got %v, want more than %v", name, got, oryTimeout)
		}
	}
}

// Clients that send half a header do not stop a logout, and are cut off.
func TestSlowClients(t *testing.T) {
	const clients = 2000
	app := &App{ory: newOryClient(startOry(t, kratos).URL)}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = newServer(app.routes())
	srv.Config.ReadHeaderTimeout = 2 * time.Second
	srv.Start()
	t.Cleanup(srv.Close)

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
		name       string
		url        string
		rates      []float64
		connsPerOp []float64
		allocs     []float64
	}
	contestants := []*contestant{{name: "app"}, {name: "proxy"}, {name: "sample"}}
	for i, handler := range []http.Handler{
		(&App{ory: newOryClient(fake.URL)}).routes(), proxyHandler(fake.URL), sampleHandler(fake.URL),
	} {
		srv := httptest.NewUnstartedServer(nil)
		srv.Config = newServer(handler)
		srv.Start()
		b.Cleanup(srv.Close)
		contestants[i].url = srv.URL + "/logout"
	}
	n := max(b.N, clients)
	for _, c := range contestants {
		load(b, c.url, clients, 2*clients, nil) // opens the connections
	}
	b.ResetTimer()
	for range rounds {
		for _, c := range contestants {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			conns, start := fake.conns.Load(), time.Now()
			load(b, c.url, clients, n, nil)
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

// load sends n requests from a number of clients, each with its own connection, and checks their answers.
func load(tb testing.TB, url string, clients, n int, check func(*http.Response) error) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				req, _ := http.NewRequest("GET", url, nil)
				req.Header.Set("Cookie", sessionCookie)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					tb.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if check != nil {
					if err := check(resp); err != nil {
						tb.Error(err)
						return
					}
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

// captureLog returns what is logged until the test ends, without the time.
func captureLog(t testing.TB) *syncBuffer {
	log := &syncBuffer{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	t.Cleanup(func() { slog.SetDefault(before) })
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

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
