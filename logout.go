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

// oryTimeout is how long Ory may take, so that a click is answered within 5 seconds. The tests shorten it.
var oryTimeout = 4800 * time.Millisecond

// newOryClient returns the client that logoutHandler needs. baseURL is Ory's public URL, http or https.
func newOryClient(baseURL string) *ory.APIClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Keep all connections that were in use at once, until IdleConnTimeout. The defaults, two a host
	// and 100 in all, make a busy app open a new connection to Ory for most logouts.
	transport.MaxIdleConns = 0                  // no limit
	transport.MaxIdleConnsPerHost = math.MaxInt // 0 is two
	// Without pings, a dead HTTP/2 connection fails every logout until TCP gives up, after many minutes.
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

// logoutHandler answers GET with 303 to the logout URL of a new Ory logout flow, or to / if it gets none,
// and with 403 if the request is not the user's own doing. The query parameter return_to is where the
// browser lands in the end, if Ory allows that URL; else it is Ory's default return URL.
// https://www.ory.com/docs/kratos/self-service/flows/user-logout
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if !userNavigation(r.Header) {
		// Not a redirect: a browser may keep the answer to a prefetch and use it for the real click.
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, refusedPage)
		return
	}
	// http.Redirect would escape the URL, and repeat it in a body.
	w.Header().Set("Location", app.logoutURL(r))
	w.WriteHeader(http.StatusSeeOther)
}

// refusedPage links to its own URL, return_to and all: followed from here, the link is the user's own doing.
const refusedPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Not signed out</title>
<body style="max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif">
<p>You were not signed out, as another site asked for it, or something that was not a click.
<p>Did you mean to? <a href="">Logout</a>
`

// userNavigation reports whether a request with header h may be the user's own doing: a top-level
// navigation that no other site started, and no prefetch or prerender. Ory's session cookie, which is
// SameSite=Lax, comes with all of these. https://www.w3.org/TR/fetch-metadata/
//
// It passes links of the same site; scripts that set location without a gesture, as idle timeouts do; and
// requests without Fetch Metadata, which browsers send on https and localhost only.
func userNavigation(h http.Header) bool {
	dest := h.Get("Sec-Fetch-Dest")
	return h.Get("Sec-Fetch-Site") != "cross-site" &&
		(dest == "" || dest == "document") &&
		h.Get("Sec-Purpose") == "" && h.Get("Purpose") == "" && h.Get("X-Moz") == ""
}

// logoutURL returns the logout URL of a new Ory logout flow for the session in r's cookies, or "/" if
// Ory gives none within oryTimeout.
func (app *App) logoutURL(r *http.Request) string {
	cookie := cookieHeader(r)
	if cookie == "" {
		return "/" // Nobody to sign out. Asking Ory would use up the rate limit that sign-in shares.
	}
	ctx, cancel := context.WithTimeout(r.Context(), oryTimeout)
	defer cancel()
	plain := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookie)

	request, returnTo := plain, r.URL.Query().Get("return_to")
	if returnTo != "" {
		request = plain.ReturnTo(returnTo)
	}
	flow, resp, err := request.Execute()
	if returnTo != "" && statusCode(resp) == http.StatusBadRequest {
		// Ory refuses return_to. The user clicked Logout all the same, and must not stay signed in.
		logOryError(r, slog.LevelWarn, "return_to refused", resp, err)
		flow, resp, err = plain.Execute()
	}
	// client-go returns neither a flow nor an error for null and for no body.
	if err != nil || !isLogoutURL(flow.GetLogoutUrl()) {
		logOryError(r, slog.LevelError, "logout failed", resp, err)
		return "/"
	}
	return flow.LogoutUrl
}

// cookieHeader returns r's Cookie header. A proxy may have split it: RFC 9113, 8.2.3.
func cookieHeader(r *http.Request) string {
	return strings.Join(r.Header["Cookie"], "; ")
}

// isLogoutURL reports whether s is an absolute URL that a Location header carries unchanged.
func isLogoutURL(s string) bool {
	u, err := url.Parse(s) // which refuses line breaks
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && !strings.Contains(s, " ")
}

// statusCode returns resp's status code, or 0 if there is no resp.
func statusCode(resp *http.Response) int {
	if resp == nil {
		return 0
	}
	return resp.StatusCode
}

// logOryError logs why resp and err, as client-go returned them, are of no use: at level, or as information
// if the session is over or the browser has gone. Of what Ory sent it logs the status and error.reason, and
// of the errors those of the network: the texts of others quote URLs, headers and bodies.
func logOryError(r *http.Request, level slog.Level, msg string, resp *http.Response, err error) {
	var answer struct{ Error struct{ Reason string } }
	if resp != nil {
		json.NewDecoder(resp.Body).Decode(&answer) // client-go has read the body, and put it back
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
	} else if statusCode(resp) == http.StatusUnauthorized {
		level = slog.LevelInfo
	}
	slog.Log(r.Context(), level, msg, "status", statusCode(resp), "reason", reason)
}
