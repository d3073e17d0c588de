// SPDX-License-Identifier: 0BSD

// Ory-logout is a web app whose users Ory signs in (Ory Network or Ory Kratos), with a link that signs
// them out:
//
//	ORY_SDK_URL=http://localhost:4000 PORT=3000 ory-logout
//
// ORY_SDK_URL is Ory's public URL. Both variables are optional; these are their defaults.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	ory "github.com/ory/client-go"
)

// App is the web app. It keeps nothing about users: any number of copies can stand behind a load balancer.
type App struct {
	ory *ory.APIClient
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ory-logout:", err)
		os.Exit(1)
	}
}

// run serves the app as the environment configures it, until SIGINT or SIGTERM.
func run() error {
	oryURL := cmp.Or(os.Getenv("ORY_SDK_URL"), "http://localhost:4000")
	// Paths are appended to it, and browsers are sent there.
	u, err := url.Parse(oryURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(oryURL, "?#@ ") {
		return errors.New("ORY_SDK_URL is not usable: set it to Ory's public URL, http or https, without user, query, fragment or space, like http://localhost:4000")
	}
	// This comes before Listen, so that a signal ends the program cleanly as soon as the server can be reached.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // A second signal ends the program at once.

	ln, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "3000"))
	if err != nil {
		return fmt.Errorf("PORT is not usable: set it to a free TCP port: %w", err)
	}
	app := &App{ory: newOryClient(oryURL)}
	// The log says localhost, as cookies that are set there do not reach 127.0.0.1.
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port), "ory", oryURL)
	return serve(ctx, ln, app.routes())
}

// serve serves h on ln until the end of ctx. Requests that are under way then have 10 seconds more. If one takes longer, serve
// returns an error, and the end of the program cuts that request off.
func serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := newServer(h)
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		return fmt.Errorf("cutting off requests that are still under way after 10 seconds: %w", err)
	}
	return nil
}

func (app *App) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", app.homeHandler)
	mux.HandleFunc("GET /logout", app.logoutHandler)
	return mux
}

// newServer returns a server for h.
func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:        h,
		ReadTimeout:    10 * time.Second,
		WriteTimeout:   15 * time.Second, // It is more, as net/http waits all of ReadTimeout for a body, and then answers.
		IdleTimeout:    11 * time.Minute, // It is more than the 10 of Google's load balancer, which else answers 502 at times.
		MaxHeaderBytes: 64 << 10,         // With the default, 1 MiB, one page that asks took 24 MiB.
		ErrorLog:       slog.NewLogLogger(slog.Default().Handler(), slog.LevelError),
	}
}

const maxOryAnswer = 128 << 10 // bytes of a header or a body. Ory sends a few KB.

// newOryClient returns a client of the Ory at baseURL, its public URL.
func newOryClient(baseURL string) *ory.APIClient {
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	cfg.HTTPClient = &http.Client{
		Transport: oryTransport{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			MaxResponseHeaderBytes: maxOryAnswer,
			MaxIdleConnsPerHost:    1 << 20, // With the default, 2, most logouts of a busy app open a connection.
			IdleConnTimeout:        90 * time.Second,
			// Dials and TLS handshakes outlive their requests, so they have limits of their own. With a DialContext, a Transport
			// speaks HTTP/1.1 only. That is wanted: over HTTP/2, one user's large cookies made nginx drop all users' requests.
			DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout: 3 * time.Second,
		}},
		// A redirect means that baseURL is wrong. Followed to another host, it would lose the cookies, and Ory would say that
		// nobody is signed in.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return ory.NewAPIClient(cfg)
}

// oryTransport is a Transport that bounds what a broken Ory can cost.
type oryTransport struct{ *http.Transport }

func (t oryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if errors.Is(err, context.DeadlineExceeded) {
		t.CloseIdleConnections() // If one connection is dead, so may be the idle ones, and each would fail a logout.
	}
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxOryAnswer) // It says "request", and works for an answer, too.
	}
	return resp, err
}

// homePage reloads itself when the Back button shows a kept copy: on http, WebKit keeps one in spite of no-store.
var homePage = template.Must(template.New("").Parse(pageHead + `<title>Ory logout</title>
<h1>{{.State}}</h1>
{{with .Text}}<p>{{.}}{{end}}
<p><a class="button" href="{{.Href}}" target="_top">{{.Link}}</a>
<script>onpageshow = event => { if (event.persisted) location.reload() }</script>
`))

// homeHandler answers with a page that says whether the user is signed in, and links to Logout or to Ory's sign-in.
//
// It asks Ory for a logout flow, which changes nothing. Whoami would not do: it answers 401 when Kratos's database is
// broken, and 403 to a user who is signed in by one of two factors.
func (app *App) homeHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if isPrefetch(r.Header) { // One that begins while a logout is under way would be shown after it.
		http.Error(w, "no prefetch: the page shows the session's state", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'") // against clickjacking of Logout
	page := struct{ State, Text, Link, Href string }{State: "You are signed in.", Link: "Logout", Href: "/logout"}

	// With the 3 seconds of a logout, the user sees this page within 5 seconds of a click, even if Ory hangs.
	ctx, cancel := context.WithTimeout(r.Context(), 1500*time.Millisecond)
	defer cancel()
	flow, err := app.logoutFlow(ctx, r, "")
	switch {
	case err != nil:
		if ctx.Err() != context.Canceled { // The browser still waits.
			slog.ErrorContext(ctx, "session unknown", "err", err)
		}
		page.State = "You may be signed in."
		page.Text = "Ory could not tell. If you clicked Logout, you may still be signed in."
	case flow.LogoutUrl == "":
		page.State = "You are signed out."
		page.Link = "Sign in"
		page.Href = app.ory.GetConfig().Servers[0].URL + "/self-service/login/browser"
	}
	_ = homePage.Execute(w, page)
}
