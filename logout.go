// SPDX-License-Identifier: 0BSD

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	ory "github.com/ory/client-go"
)

// logoutHandler answers GET with 303 to the URL where Ory signs the user out, or to / if nobody is signed in or Ory gives
// no such URL within 3 seconds. Where the browser does not vouch for the request, it answers 403 and a page that asks the
// user, whose link comes back with Ory's logout token. In the end Ory sends the browser to the URL in the query's return_to,
// if allowed. https://www.ory.com/docs/kratos/self-service/flows/user-logout
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet { // The pattern "GET /logout" matches HEAD too.
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if isPrefetch(r.Header) {
		askUser(w, r, "")
		return
	}
	// Else Chromium would show, after the logout, pages that it fetched in advance, and they would say "signed in".
	w.Header().Set("Clear-Site-Data", `"prefetchCache", "prerenderCache"`)

	vouched := browserVouches(r.Header)
	token := r.URL.Query().Get("logout_token")
	returnTo := r.URL.Query().Get("return_to")
	if !vouched && token == "" {
		returnTo = "" // The answer will be the page. Should Ory refuse return_to, it would be asked twice for nothing.
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	flow, err := app.logoutFlow(ctx, r, returnTo)
	if err != nil && returnTo != "" && ctx.Err() == nil { // Ory may refuse return_to. The user clicked Logout all the same.
		slog.WarnContext(ctx, "return_to left out", "return_to", origin(returnTo), "err", err)
		flow, err = app.logoutFlow(ctx, r, "")
	}
	if err != nil && !errors.Is(r.Context().Err(), context.Canceled) { // Canceled would mean that the browser went away.
		slog.ErrorContext(ctx, "logout failed", "err", err)
	}

	// The token belongs to the session, and no other site can read it. An empty one proves nothing: it is that of no session.
	confirmed := token != "" && token == flow.LogoutToken
	if !vouched && !confirmed {
		askUser(w, r, flow.LogoutToken)
		return
	}
	http.Redirect(w, r, cmp.Or(flow.LogoutUrl, "/"), http.StatusSeeOther)
}

// isPrefetch reports whether h is the header of a prefetch or prerender: the user has not clicked yet, and may never do so.
// One of these headers is enough, whatever its value.
func isPrefetch(h http.Header) bool {
	return h["Sec-Purpose"] != nil || h["Purpose"] != nil || h["X-Purpose"] != nil || h["X-Moz"] != nil || h["X-Sec-Purpose"] != nil
}

// browserVouches reports whether the browser says, in h, that a page of this site led to the request and that the user sees
// the answer. The session cookie says neither: it also comes with other sites' links. https://www.w3.org/TR/fetch-metadata/
func browserVouches(h http.Header) bool {
	// "none", as of a typed URL, does not count: reloads and the Back button bring it too, for what another site led to.
	// No header does count: old browsers send none, and on plain http (but for localhost) no browser does.
	site := h.Get("Sec-Fetch-Site")
	sameSite := site == "same-origin" || site == "same-site" || site == ""

	// Images, frames and the like load without a click. "empty" is a fetch by a script or a service worker: behind a worker,
	// Firefox and WebKit call every request same-origin, whoever began it.
	dest := h.Get("Sec-Fetch-Dest")
	seen := dest == "document" || dest == ""

	// With navigation preload, a worker stands between too, but the destination is "document". The app's script chooses the
	// header's value, which may be empty.
	preload := h["Service-Worker-Navigation-Preload"] != nil

	return sameSite && seen && !preload
}

// logoutPageHead begins a page whose links look like buttons.
const logoutPageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><style>
	body { max-width: 36rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.4 system-ui, sans-serif; overflow-wrap: break-word }
	a { display: inline-block; padding: .6rem 1.5rem; border-radius: .5rem; background: #4338ca; color: #fff; text-decoration: none }</style>`

// askPage's link has a target, so that Turbo, htmx and the like leave the click to the browser. The meta element makes Turbo
// show the page even if it asked for a frame's content.
var askPage = template.Must(template.New("").Parse(logoutPageHead + `<meta name="turbo-visit-control" content="reload">
<title>Logout</title><h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout, so nothing has happened.
<p><a href="{{.}}" target="_top">Logout</a>`))

// askUser answers 403 with askPage, whose link repeats r's query, return_to and all, with token as its logout_token.
func askUser(w http.ResponseWriter, r *http.Request, token string) {
	query := r.URL.Query()
	query.Set("logout_token", token)
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", r.RequestURI) // htmx 1 and 2 do not show a 403, but do go where this says.
	}
	// In a frame, another site could have the link clicked. A policy of the app's is replaced, as it may forbid the style.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden) // Chromium and some routers use the answer to a prefetch for the click, but not an error.
	askPage.Execute(w, "?"+query.Encode())
}

// logoutFlow asks Ory for a logout flow with r's cookies, which changes nothing. If nobody is signed in, it returns the zero
// LogoutFlow, without a LogoutUrl, and no error. The text of an error may be logged: see logoutError.
func (app *App) logoutFlow(ctx context.Context, r *http.Request, returnTo string) (ory.LogoutFlow, error) {
	cookies := strings.Join(r.Header["Cookie"], "; ") // A proxy may have split the header: RFC 9113, section 8.2.3.
	if cookies == "" {
		return ory.LogoutFlow{}, nil // To ask Ory would use up its rate limit.
	}
	request := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookies)
	if returnTo != "" {
		request = request.ReturnTo(returnTo)
	}
	flow, resp, err := request.Execute()
	if err == nil && isHTTPURL(flow.GetLogoutUrl()) { // The flow is nil if Ory answers null; then the getter returns "".
		return *flow, nil
	}
	return ory.LogoutFlow{}, logoutError(resp, err)
}

// logoutError returns why Ory gave no logout flow, or nil if nobody is signed in. Its text may be logged: it has 200 bytes at
// the most, and nothing secret in it, unless Ory's own words quote something.
func logoutError(resp *http.Response, err error) error {
	why := "no usable answer" // in place of the text of an error that may quote a URL, a header or a body
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
		if !isHTTPURL(urlErr.URL) {
			why = "the URL of Ory is not an absolute http or https URL"
		}
	}
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	if errors.As(err, &netErr) || errors.As(err, &certErr) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		why = err.Error()
	}
	if resp != nil {
		var body struct {
			Error struct{ ID, Reason, Message string }
		}
		json.NewDecoder(resp.Body).Decode(&body) // client-go has read the body, and put it back.
		location, _ := resp.Location()
		switch {
		case resp.StatusCode == http.StatusUnauthorized && body.Error.ID == "session_inactive":
			return nil
		case resp.StatusCode/100 == 3 && location != nil: // Most likely, the app has a wrong URL of Ory.
			why = "redirect to " + origin(location.String())
		case resp.Request.URL.Query().Has("return_to"): // Ory's reason would quote it, secrets and all.
			why = cmp.Or(body.Error.ID, why)
		default:
			why = cmp.Or(body.Error.Reason, body.Error.Message, why)
		}
		why = fmt.Sprintf("status %d: %s", resp.StatusCode, why)
	}
	return errors.New(why[:min(len(why), 200)])
}

// isHTTPURL reports whether s is an absolute http or https URL.
func isHTTPURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// origin returns what may be logged of a URL: its scheme and host, 200 bytes at the most, or "" if it has neither.
func origin(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	s = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	return s[:min(len(s), 200)]
}

// newOryClient returns the client of an App. baseURL is Ory's public URL.
func newOryClient(baseURL string) *ory.APIClient {
	var http1 http.Protocols // Over HTTP/2, nginx and HAProxy drop all users' requests when one user's cookies are too large.
	http1.SetHTTP1(true)
	transport := &http.Transport{
		Protocols:              &http1,
		Proxy:                  http.ProxyFromEnvironment,
		TLSHandshakeTimeout:    3 * time.Second, // A handshake goes on when the browser that waited for it has left.
		MaxResponseHeaderBytes: 128 << 10,       // Ory sends a few KB. RoundTrip limits the body to the same.
		MaxIdleConnsPerHost:    1 << 20,         // With the default, 2, most logouts of a busy app open a connection.
		IdleConnTimeout:        90 * time.Second,
	}
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	cfg.HTTPClient = &http.Client{
		Transport:     oryTransport{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // Cookies are for Ory alone.
	}
	return ory.NewAPIClient(cfg)
}

// oryTransport is a RoundTripper for an Ory that may answer anything, or nothing.
type oryTransport struct{ *http.Transport }

func (t oryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		// If one connection is dead, so may be the idle ones, and each would fail a logout. This also ends the attempts to
		// connect that no request waits for any more.
		t.CloseIdleConnections()
	case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body.Close() // It is the connection, and no context ends a read from that.
		resp.Body = http.NoBody
	case err == nil:
		resp.Body = http.MaxBytesReader(nil, resp.Body, t.MaxResponseHeaderBytes)
	}
	return resp, err
}
