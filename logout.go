// SPDX-License-Identifier: 0BSD

//go:build go1.24

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"html/template"
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

// oryTimeout is how long Ory may take over one click on Logout.
const oryTimeout = 3 * time.Second

// maxOryAnswer is how many bytes the app reads of the header of Ory's answer, and of its body.
const maxOryAnswer = 1 << 20

// newOryClient returns the client that logoutHandler needs. baseURL is Ory's public URL, http or https.
func newOryClient(baseURL string) *ory.APIClient {
	// Over HTTP/2 all users share a connection, and some proxies in front of Ory (nginx, HAProxy)
	// end it when one user's cookies are too large.
	var http1 http.Protocols
	http1.SetHTTP1(true)

	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	cfg.HTTPClient = &http.Client{
		Transport: oryTransport{&http.Transport{
			Protocols:              &http1,
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext, // A dial goes on when the browser goes away.
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: maxOryAnswer,
			MaxIdleConnsPerHost:    math.MaxInt, // With the default, 2, most logouts of a busy app open a connection.
			IdleConnTimeout:        90 * time.Second,
		}},
		// Followed, a redirect takes the user's cookies to other ports and subdomains of Ory's host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return ory.NewAPIClient(cfg)
}

// oryTransport is a RoundTripper for an Ory that may answer anything.
type oryTransport struct{ *http.Transport }

var errOryUpgrade = errors.New("answered 101 Switching Protocols")

// RoundTrip returns an answer whose body, decompressed, fails after maxOryAnswer bytes. 101 is an error, as its
// body is the connection, and no context ends a read from that.
func (t oryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	if errors.Is(err, context.DeadlineExceeded) {
		t.CloseIdleConnections() // If this one is dead, they may be too: each would fail one more click.
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, errOryUpgrade
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxOryAnswer)
	return resp, nil
}

// logoutHandler answers GET with 303 to the logout URL of a new Ory logout flow, or to / if it gets none,
// and with 403 if the request is not the user's own doing. The query parameter return_to is where the
// browser lands in the end, if Ory allows that URL; else it is Ory's default return URL.
// https://www.ory.com/docs/kratos/self-service/flows/user-logout
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet { // a route for GET gets HEAD too
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if !userNavigation(r) {
		refuseLogout(w, r)
		return
	}
	// http.Redirect would escape what is not ASCII, and repeat the URL in a body.
	w.Header().Set("Location", app.logoutURL(r))
	w.WriteHeader(http.StatusSeeOther)
}

// logoutPageHead begins a page whose links are buttons.
const logoutPageHead = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<style>
	body { max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
	h1 { font-size: 1.75rem; line-height: 1.2 }
	a { display: inline-block; padding: .6rem 1.5rem; border-radius: .5rem; background: #4338ca; color: #fff; text-decoration: none }
	a:focus-visible { outline: 3px solid #818cf8; outline-offset: 3px }
</style>
`

// logoutRefusedPage has a link that Turbo, htmx and the like leave to the browser, as it has a target.
var logoutRefusedPage = template.Must(template.New("").Parse(logoutPageHead + `<title>Logout</title>
<h1>Do you want to sign out?</h1>
<p>This did not look like a click on Logout in this app, so you were not signed out.
<p><a href="{{.}}" target="_top" referrerpolicy="same-origin">Logout</a>
`))

// logoutConfirm names a cookie, and the query parameter that is equal to it in the link of logoutRefusedPage alone: a
// click there is the user's own doing, whatever a service worker makes of the request.
const logoutConfirm = "logout_confirm"

// refuseLogout answers 403 with a page that links to r's own URL, return_to and all.
func refuseLogout(w http.ResponseWriter, r *http.Request) {
	secret, query := rand.Text(), r.URL.Query()
	query.Set(logoutConfirm, secret)
	http.SetCookie(w, &http.Cookie{Name: logoutConfirm, Value: secret, MaxAge: 600, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	// Beside the app's own policy: in a frame, another site could have the page's link clicked.
	w.Header().Add("Content-Security-Policy", "frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// Not a redirect: a browser may keep one that answers a prefetch, and use it for the real click.
	w.WriteHeader(http.StatusForbidden)
	logoutRefusedPage.Execute(w, "?"+query.Encode())
}

// userNavigation reports whether r may be the user's own doing: a top-level navigation that no other site
// started, and no prefetch or prerender. The session cookie does not tell: being SameSite=Lax, it also comes with
// another site's links, and with images, frames and prefetches of the same site. https://www.w3.org/TR/fetch-metadata/
//
// It passes links of the same site; scripts that set location without a gesture, as idle timeouts do; and
// requests without Fetch Metadata, as browsers send it on https and localhost only.
func userNavigation(r *http.Request) bool {
	h := r.Header
	site, mode, dest := h.Get("Sec-Fetch-Site"), h.Get("Sec-Fetch-Mode"), h.Get("Sec-Fetch-Dest")
	preload := h.Get("Service-Worker-Navigation-Preload")
	// Of what has no destination, browsers ask for an upgrade only in a navigation that a service worker passes on.
	// (So may a script of the app's own origin. One of another origin needs a preflight, and is answered 405.)
	passedOn := dest == "empty" && h.Get("Upgrade-Insecure-Requests") == "1"
	confirm, err := r.Cookie(logoutConfirm)
	switch {
	case h.Get("Sec-Purpose") != "", h.Get("Purpose") != "", h.Get("X-Moz") != "": // prefetch, prerender
		return false
	case err == nil && confirm.Value != "" && confirm.Value == r.URL.Query().Get(logoutConfirm):
		return true
	case site != "" && site != "none" && site != "same-origin" && site != "same-site":
		return false
	case dest != "" && dest != "document" && !passedOn:
		return false
	case site != "same-origin", preload == "" && (!passedOn || mode == "navigate" && r.Referer() == ""):
		return true
	}
	// When a service worker passes another site's link on, Firefox and WebKit call it same-origin, and so does Firefox
	// with navigation preload. Only the Referer tells then which page led here: another site can leave it out, but not
	// forge it. In WebKit, and where a worker rebuilds the request, one that was left out is the worker's own script.
	referer, err := url.Parse(r.Referer())
	return err == nil && strings.EqualFold(referer.Hostname(), (&url.URL{Host: r.Host}).Hostname()) && !strings.HasSuffix(referer.Path, ".js")
}

// logoutURL returns the logout URL of a new Ory logout flow for the session in r's cookies, or "/" if
// Ory gives none within oryTimeout.
func (app *App) logoutURL(r *http.Request) string {
	cookie := oryCookies(r)
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
	if status := oryStatus(resp); returnTo != "" && status/100 == 4 && status != http.StatusUnauthorized && status != http.StatusTooManyRequests {
		// Ory, or a proxy in front of it, refuses return_to. The user clicked Logout all the same, and must not stay signed in.
		logRefusal(r, returnTo, resp)
		flow, resp, err = plain.Execute()
	}
	// client-go returns neither a flow nor an error for null and for no body.
	if err != nil || !isHTTPURL(flow.GetLogoutUrl()) {
		logOryFailure(r, "logout failed", resp, err)
		return "/"
	}
	return flow.LogoutUrl
}

// oryCookies returns r's Cookie header. A proxy may have split it: RFC 9113, 8.2.3.
func oryCookies(r *http.Request) string {
	return strings.Join(r.Header["Cookie"], "; ")
}

// isHTTPURL reports whether s is an absolute http or https URL that a Location header carries unchanged.
func isHTTPURL(s string) bool {
	u, err := url.Parse(s) // which refuses control characters
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && !strings.Contains(s, " ")
}

// oryStatus returns resp's status code, or 0 if there is no resp.
func oryStatus(resp *http.Response) int {
	if resp == nil {
		return 0
	}
	return resp.StatusCode
}

// logRefusal logs that resp refuses returnTo. Ory's reason is left out: it quotes the URL, which may hold a secret.
func logRefusal(r *http.Request, returnTo string, resp *http.Response) {
	id, _ := oryError(resp)
	var host string
	if u, err := url.Parse(returnTo); err == nil {
		host = u.Host
	}
	slog.WarnContext(r.Context(), "return_to refused", "status", oryStatus(resp), "id", logCut(id), "host", logCut(host))
}

// logOryFailure logs msg, and why resp and err, as client-go returned them, are of no use to r.
func logOryFailure(r *http.Request, msg string, resp *http.Response, err error) {
	if r.Context().Err() == context.Canceled { // and not a time limit of the app's own
		slog.InfoContext(r.Context(), "the browser went away")
		return
	}
	if oryStatus(resp) == http.StatusUnauthorized {
		slog.InfoContext(r.Context(), "no session")
		return
	}
	slog.ErrorContext(r.Context(), msg, "status", oryStatus(resp), "reason", logCut(oryReason(resp, err)))
}

// oryReason returns why resp and err are of no use, in words that may be logged: Ory's own, or those of errors about
// the connection. The texts of all others may quote URLs, headers and bodies.
func oryReason(resp *http.Response, err error) string {
	if _, reason := oryError(resp); reason != "" {
		return reason
	}
	if urlErr, ok := err.(*url.Error); ok { // of http.Client: itself a net.Error, but its text has the URL
		err = urlErr.Err
	}
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	switch {
	case err == errOryUpgrade, err == http.ErrSchemeMismatch:
		return err.Error()
	case errors.As(err, &netErr):
		return netErr.Error()
	case errors.As(err, &certErr):
		return certErr.Error()
	case errors.Is(err, io.EOF):
		return "Ory closed the connection"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "Ory's answer broke off"
	}
	return "no usable answer"
}

// oryError returns what Ory says in resp of its error, if it does: https://www.ory.com/docs/kratos/reference/api
func oryError(resp *http.Response) (id, reason string) {
	if resp == nil {
		return "", ""
	}
	var answer struct{ Error struct{ ID, Reason string } }
	json.NewDecoder(resp.Body).Decode(&answer) // client-go has read the body, and put it back
	return answer.Error.ID, answer.Error.Reason
}

// logCut returns the first 200 bytes of s, which may be as long as the sender likes.
func logCut(s string) string {
	return s[:min(len(s), 200)]
}
