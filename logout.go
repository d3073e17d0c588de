package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	ory "github.com/ory/client-go"
)

// oryTimeout is how long Ory may take over one request, a second try included. The tests shorten it.
var oryTimeout = 4800 * time.Millisecond

// newOryClient returns the client that logoutHandler needs, for the Ory at baseURL, an absolute http or https URL.
func newOryClient(baseURL string) *ory.APIClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Keep all connections that were in use at once, until IdleConnTimeout. The defaults, two a host
	// and 100 in all, make a busy app open a new connection to Ory for most logouts.
	transport.MaxIdleConns = 0                  // no limit
	transport.MaxIdleConnsPerHost = math.MaxInt // 0 is two
	// Without pings, a dead HTTP/2 connection fails all logouts until TCP gives it up, a quarter of an hour later.
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 3 * oryTimeout, PingTimeout: oryTimeout}

	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	cfg.HTTPClient = &http.Client{
		Transport: transport,
		// A redirect would carry the user's cookies on to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return ory.NewAPIClient(cfg)
}

// logoutHandler signs the user out of Ory. To a GET request that is the user's own doing it answers
// 303 to the logout URL of a new logout flow, or to / where there is none. The query parameter
// return_to, if Ory allows it, is where the browser lands at the end.
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if !userNavigation(r.Header) {
		// No redirect: a browser may keep the answer to a prefetch, and use it for the real click.
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, refusedPage)
		return
	}
	// http.Redirect would escape the URL, and repeat it in a body.
	w.Header().Set("Location", app.logoutURL(r))
	w.WriteHeader(http.StatusSeeOther)
}

// refusedPage links to itself: the same URL, but now from a click of the user on a page of this site.
const refusedPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Not signed out</title>
<body style="max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif">
<p>You are not signed out: another site, or something other than a click, asked for it.
<p>Did you mean to? <a href="">Logout</a>
`

// userNavigation reports whether a request with header h may come from the user: it is a top-level
// navigation that no other site started (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/) and
// no prefetch or prerender. Ory's session cookie is SameSite=Lax, so it travels with all of these.
// A request without these headers passes: browsers send Fetch Metadata on https and localhost only.
// A same-site link passes, and a script's location = "/logout", as idle timeouts need it.
func userNavigation(h http.Header) bool {
	dest := h.Get("Sec-Fetch-Dest")
	return h.Get("Sec-Fetch-Site") != "cross-site" &&
		(dest == "" || dest == "document") &&
		h.Get("Sec-Purpose") == "" && h.Get("Purpose") == "" && h.Get("X-Moz") == ""
}

// logoutURL returns the logout URL of a new Ory logout flow for the session in r's cookies,
// or "/" if there is no session or Ory does not answer with a logout URL within oryTimeout.
func (app *App) logoutURL(r *http.Request) string {
	cookie := cookieHeader(r)
	if cookie == "" {
		return "/" // Asking Ory would cost a request of the rate limit that sign-in shares.
	}
	ctx, cancel := context.WithTimeout(r.Context(), oryTimeout)
	defer cancel()
	request := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookie)

	var flow *ory.LogoutFlow
	var resp *http.Response
	var err error
	if returnTo := r.URL.Query().Get("return_to"); returnTo == "" {
		flow, resp, err = request.Execute()
	} else if flow, resp, err = request.ReturnTo(returnTo).Execute(); status(resp) == http.StatusBadRequest {
		// The user clicked Logout, so a return_to that Ory refuses must not keep the user signed in.
		logOryError(r, slog.LevelWarn, "return_to refused", resp, err)
		flow, resp, err = request.Execute()
	}
	// For an answer without a body, and for null, client-go returns neither a flow nor an error.
	logoutURL := flow.GetLogoutUrl() // "" for no flow
	if err != nil || !isLogoutURL(logoutURL) {
		logOryError(r, slog.LevelError, "logout failed", resp, err)
		return "/"
	}
	return logoutURL
}

// cookieHeader returns r's Cookie header. A proxy may have split it: RFC 9113, 8.2.3.
func cookieHeader(r *http.Request) string {
	return strings.Join(r.Header["Cookie"], "; ")
}

// isLogoutURL reports whether s is an absolute URL that a Location header carries unchanged.
func isLogoutURL(s string) bool {
	u, err := url.Parse(s) // refuses control characters
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !strings.Contains(s, " ")
}

// status returns the status code of resp, or 0 if there is none.
func status(resp *http.Response) int {
	if resp == nil {
		return 0
	}
	return resp.StatusCode
}

// logOryError logs why Ory's answer, resp and err as client-go returned them, is of no use to r: at level,
// or as information if the session is over or the browser has gone. It logs Ory's own reason and errors of
// the network, and no other text: errors of net/http and client-go may quote URLs and what Ory sent.
func logOryError(r *http.Request, level slog.Level, msg string, resp *http.Response, err error) {
	var answer struct{ Error struct{ Reason string } }
	if resp != nil {
		json.NewDecoder(resp.Body).Decode(&answer) // client-go has read it and put it back
	}
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err
	}
	reason := cmp.Or(answer.Error.Reason, "no usable answer")
	if netErr, ok := errors.AsType[net.Error](err); ok {
		reason = netErr.Error()
	} else if certErr, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		reason = certErr.Error()
	}
	if r.Context().Err() != nil {
		level, reason = slog.LevelInfo, "the browser went away"
	} else if status(resp) == http.StatusUnauthorized {
		level = slog.LevelInfo
	}
	slog.Log(r.Context(), level, msg, "status", status(resp), "reason", reason)
}
