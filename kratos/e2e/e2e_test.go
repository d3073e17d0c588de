// Package e2e tests the app with a real Ory Kratos, in Chromium, Firefox and WebKit.
package e2e

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ory-logout/kratos/demo"
)

// What all tests share: a stack, whose app is reached through proxies, and three more sites. Sites are told apart by host
// and by scheme, not by port.
var (
	shared                            *demo.Stack
	landing                           *origin // where Kratos leads after a logout
	sameSite, crossSite, crossSiteTLS string
	proxy                             *httputil.ReverseProxy // to the app
	interrupted                       context.Context        // ends when the tests are interrupted, or hang
)

func TestMain(m *testing.M) {
	os.Chdir("..") // to the module's folder, where package demo builds and finds its programs
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	flag.Parse()
	limit, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String())
	if err != nil || limit == 0 { // which means none
		limit = time.Hour
	}
	// At the limit itself, go test would end and leave Kratos and the browsers behind.
	ctx, cancel := context.WithTimeout(context.Background(), limit-30*time.Second)
	defer cancel()
	var stop context.CancelFunc
	interrupted, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "ory-logout")
	if err != nil {
		fmt.Println("e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv("TMPDIR", dir) // A browser that is killed leaves files there.
	shared = newStack(dir, "&_journal=WAL&_sync=OFF")
	defer shared.Stop()
	if err := startShared(interrupted); err != nil {
		fmt.Println("e2e:", err)
		return 1
	}
	code := m.Run()
	if interrupted.Err() != nil {
		return 1
	}
	return code
}

func startShared(ctx context.Context) error {
	kratos, err := demo.Build(ctx)
	if err != nil {
		return err
	}
	shared.KratosBinary = kratos
	appPort := freePort()
	proxy = proxyTo(appPort)
	landing = newOrigin("http", proxy)
	shared.AppPort = landing.port
	port := serve("http", http.HandlerFunc(pageHandler))
	sameSite = fmt.Sprintf("http://localhost:%d", port)
	crossSite = fmt.Sprintf("http://127.0.0.1:%d", port)
	crossSiteTLS = fmt.Sprintf("https://127.0.0.1:%d", serve("https", http.HandlerFunc(pageHandler)))
	if err := startWithDatabase(ctx, shared); err != nil {
		return err
	}
	return shared.StartApp(ctx, appPort)
}

func proxyTo(port int) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("localhost:%d", port)})
		r.SetXForwarded()
		if r.In.URL.RawQuery == "prefetchable" {
			r.Out.Header.Del("Sec-Purpose") // so that the app answers a prefetch
		}
	}, ErrorLog: log.New(io.Discard, "", 0)} // A double click is an error there: the browser gives up its first request.
}

// origin is a scheme and a port of localhost, where the app is served with pages of the tests' beside it.
type origin struct {
	port       int
	url        string // without a slash at its end
	logoutURL  string
	lastStatus atomic.Int64 // of the answers of logoutURL, or 0 if there was none
}

// newOrphan serves the app without its Kratos, until the end of the test.
func newOrphan(t *testing.T) *origin {
	t.Helper()
	orphan := &demo.Stack{AppPort: freePort(), KratosPort: freePort()}
	t.Cleanup(orphan.Stop)
	if err := orphan.StartApp(interrupted, orphan.AppPort); err != nil {
		t.Fatal(err)
	}
	return newOrigin("http", proxyTo(orphan.AppPort))
}

// newOrigin serves app, and the tests' pages, on a new port.
func newOrigin(scheme string, app http.Handler) *origin {
	o := &origin{}
	mux := http.NewServeMux()
	mux.Handle("/", app)
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(statusWriter{w, &o.lastStatus}, r) })
	mux.HandleFunc("/page", pageHandler)
	mux.HandleFunc("/worker.js", pageHandler)
	mux.HandleFunc("/ngsw.json", func(w http.ResponseWriter, _ *http.Request) { // of Angular's service worker
		io.WriteString(w, `{"configVersion": 1, "index": "/", "navigationUrls": [{"positive": true, "regex": "."}],
			"assetGroups": [{"name": "app", "installMode": "prefetch", "urls": ["/"], "patterns": []}], "hashTable": {}}`)
	})
	mux.Handle("/node_modules/", http.FileServer(http.Dir(".bin")))
	// For scripts, as Kratos's session cookie is HttpOnly.
	mux.HandleFunc("/cookies", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Cookie")) })
	o.port = serve(scheme, mux)
	o.url = fmt.Sprintf("%s://localhost:%d", scheme, o.port)
	o.logoutURL = o.url + "/logout"
	return o
}

// statusWriter stores the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status *atomic.Int64
}

func (w statusWriter) WriteHeader(status int) {
	w.status.Store(int64(status))
	w.ResponseWriter.WriteHeader(status)
}

// pageHandler answers with what its query asks for: cookies, a redirect, a page or a script.
func pageHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	for _, cookie := range r.URL.Query()["cookie"] {
		w.Header().Add("Set-Cookie", cookie)
	}
	if to := r.FormValue("redirect"); to != "" {
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", cmp.Or(mime.TypeByExtension(path.Ext(r.URL.Path)), "text/html; charset=utf-8"))
	io.WriteString(w, r.FormValue("body"))
}

const sessionCookie = "ory_kratos_session"

// serve serves h on a new port of the loopback, until the program ends.
func serve(scheme string, h http.Handler) (port int) {
	ln, port := listen("127.0.0.1")
	s := httptest.Server{Listener: ln, Config: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}}
	if scheme == "https" {
		s.StartTLS() // with a certificate that the browsers are told to accept
	} else {
		s.Start()
	}
	return port
}

// newStack returns a stack with its database in dir: one in memory fails when several users write at once.
func newStack(dir, options string) *demo.Stack {
	return &demo.Stack{
		AppPort: freePort(), KratosPort: freePort(), AdminPort: freePort(), SignInPort: freePort(),
		DSN: "sqlite://" + filepath.Join(dir, database) + "?_fk=true" + options,
	}
}

const database = "kratos.sqlite"

// startWithDatabase makes s's database, and starts all of s but the app.
func startWithDatabase(ctx context.Context, s *demo.Stack) error {
	if out, err := exec.CommandContext(ctx, s.KratosBinary, "migrate", "sql", "--yes", s.DSN).CombinedOutput(); err != nil {
		return fmt.Errorf("migrating Kratos's database: %w\n%s", err, out)
	}
	return s.Start(ctx)
}

var lastPort atomic.Int64

func init() { lastPort.Store(11000 + rand.Int64N(15000)) }

// listen listens on a port that it has not returned before, below 32768: Linux takes higher ones for outgoing connections.
func listen(host string) (net.Listener, int) {
	for range 1000 {
		port := int(lastPort.Add(1))
		if ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, port)); err == nil {
			return ln, port
		}
	}
	panic("no port is free for listening")
}

// freePort returns a port that no program listens on now.
func freePort() int {
	ln, port := listen("")
	ln.Close()
	return port
}

// retry calls f until it succeeds, and fails the test if that takes too long.
func retry(t *testing.T, what string, f func() error) {
	t.Helper()
	if err := poll(f); err != nil {
		t.Fatalf("waited in vain for %s: %v", what, err)
	}
}

// poll calls f until it succeeds, or for 30 seconds.
func poll(f func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil || interrupted.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
