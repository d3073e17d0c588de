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
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	ory "github.com/ory/client-go"
)

// App is the web app. It keeps no state: any number of copies can stand behind a load balancer.
type App struct {
	ory *ory.APIClient
}

func main() {
	logTo(os.Stderr)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ory-logout:", err)
		os.Exit(1)
	}
}

// run serves the app as the environment configures it, until SIGINT or SIGTERM.
func run() error {
	oryURL := cmp.Or(os.Getenv("ORY_SDK_URL"), "http://localhost:4000")
	if !isBaseURL(oryURL) {
		return errors.New("ORY_SDK_URL is not an absolute http or https URL: set it to Ory's public URL, like http://localhost:4000")
	}
	// The signals are caught before anyone can see that the server is up.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	ln, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "3000"))
	if err != nil {
		return fmt.Errorf("PORT is not a free TCP port: %w", err)
	}
	app := &App{ory: newOryClient(oryURL)}
	srv := newServer(app.routes())
	// localhost, as cookies set there do not reach 127.0.0.1.
	slog.Info("listening", "url", fmt.Sprintf("http://localhost:%d", ln.Addr().(*net.TCPAddr).Port), "ory", oryURL)

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stop() // A second signal ends the program at once.

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	srv.Shutdown(ctx) // Its only error is that the time is up.
	return nil
}

// logTo makes slog write to w, and nothing else log: to package log, net/http's client writes what a server sends
// unasked, which may be a logout URL.
func logTo(w io.Writer) {
	slog.SetDefault(slog.New(slog.NewTextHandler(w, nil)))
	log.SetOutput(io.Discard) // SetDefault had it write to slog
}

// isBaseURL reports whether s is an absolute http or https URL that the app and a browser can append a path to.
func isBaseURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}

// routes returns the app's handler.
func (app *App) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", app.homeHandler)
	mux.HandleFunc("/logout", app.logoutHandler) // which answers other methods itself
	return mux
}

// newServer returns a server for h. Its WriteTimeout, which starts when the header is read, is longer than the
// 5 seconds that an answer may take; so are the others.
func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelError),
	}
}

var homePage = template.Must(template.New("home").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Ory logout</title>
<style>
	body { max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
</style>
<h1>Ory logout</h1>
<p>{{.Text}}
<p><a href="{{.Href}}">{{.Link}}</a>
`))

// homeHandler answers GET / with a page that says whether the user is signed in, as Ory tells it now.
func (app *App) homeHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	oryURL := app.ory.GetConfig().Servers[0].URL
	page := struct{ Text, Link, Href string }{"You are signed out.", "Sign in", oryURL + "/self-service/login/browser"}

	if cookie := cookieHeader(r); cookie != "" {
		ctx, cancel := context.WithTimeout(r.Context(), oryTimeout)
		defer cancel()
		session, resp, err := app.ory.FrontendAPI.ToSession(ctx).Cookie(cookie).Execute()
		if err == nil && session.GetId() != "" { // a nil session has none
			page.Text, page.Link, page.Href = "You are signed in.", "Logout", "/logout"
		} else if statusCode(resp) != http.StatusUnauthorized {
			logOryError(r, slog.LevelError, "session unknown", resp, err)
			page.Text, page.Link, page.Href = "Ory at "+oryURL+" could not be asked whether you are signed in.", "Logout", "/logout"
		}
	}
	homePage.Execute(w, page)
}
