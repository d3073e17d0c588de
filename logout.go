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

// logoutHandler answers 303 if the browser vouches for the request, or if the query's logout_token is the one that Ory gives
// for the session: to the URL where Ory signs the user out, or to / if nobody is signed in or Ory gives no such URL within 3
// seconds. All else, and each prefetch, it answers with 403 and a page that asks the user. In the end Ory sends the browser
// to the URL in the query's return_to, if allowed. https://www.ory.com/docs/kratos/self-service/flows/user-logout
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet { // HEAD, which the pattern "GET /logout" matches too.
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if isPrefetch(r.Header) {
		askUser(w, r, "", false)
		return
	}
	// Else Chromium would show, after the logout, pages that it fetched in advance, and they would say "signed in".
	w.Header().Set("Clear-Site-Data", `"prefetchCache", "prerenderCache"`)

	vouched := browserVouches(r.Header)
	sentToken := r.URL.Query().Get("logout_token")
	returnTo := r.URL.Query().Get("return_to")
	if !vouched && sentToken == "" {
		returnTo = "" // The answer will be the page, and all it needs of Ory is the token.
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	flow, err := app.logoutFlow(ctx, r, returnTo)
	if err != nil && returnTo != "" && ctx.Err() == nil { // Ory may refuse return_to. Without it, the user can still sign out.
		slog.WarnContext(ctx, "return_to left out", "return_to", origin(returnTo), "err", err)
		flow, err = app.logoutFlow(ctx, r, "")
	}
	browserLeft := errors.Is(r.Context().Err(), context.Canceled)
	if err != nil && !browserLeft {
		slog.ErrorContext(ctx, "logout failed", "err", err)
	}

	// Only Ory and our page tell the token of a session. An empty one is no session's, and confirms nothing.
	confirmed := sentToken != "" && sentToken == flow.LogoutToken
	hasEnded := sentToken != "" && err == nil && flow.LogoutUrl == "" // The session has, as by a click in another tab.
	if vouched || confirmed {
		http.Redirect(w, r, cmp.Or(flow.LogoutUrl, "/"), http.StatusSeeOther)
	} else {
		askUser(w, r, flow.LogoutToken, hasEnded)
	}
}

// isPrefetch reports whether h is the header of a prefetch or prerender: the user has not clicked yet, and may never do so.
// One of these headers is enough, whatever its value. X-Purpose and X-Moz are older browsers', X-Sec-Purpose is Turbo's.
func isPrefetch(h http.Header) bool {
	return h["Sec-Purpose"] != nil || h["Purpose"] != nil || h["X-Purpose"] != nil || h["X-Moz"] != nil || h["X-Sec-Purpose"] != nil
}

// browserVouches reports whether, by h, a page of this site led to the request and the user sees the answer. A header that is
// missing counts as a yes: old browsers send none, nor does any browser on plain http, but for localhost.
// The session cookie says neither: it also comes with other sites' links. https://www.w3.org/TR/fetch-metadata/
func browserVouches(h http.Header) bool {
	// "none", as of a typed URL, is a no: reloads and the Back button send it, too, for what another site led to.
	site := h.Get("Sec-Fetch-Site")
	fromThisSite := site == "same-origin" || site == "same-site" || site == ""

	// Images, frames and the like load without a click. "empty" is a fetch by a script or a service worker: behind a worker,
	// Firefox and WebKit call every request same-origin, whoever began it.
	dest := h.Get("Sec-Fetch-Dest")
	shown := dest == "document" || dest == ""

	// Navigation preload is a worker's too, though for a "document". The app's script chooses the value, which may be empty.
	preload := h["Service-Worker-Navigation-Preload"] != nil

	return fromThisSite && shown && !preload
}

// logoutPageHead begins a page whose links look like buttons.
const logoutPageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><style>
	body { max-width: 36rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.4 system-ui, sans-serif; overflow-wrap: break-word }
	a { display: inline-block; padding: .6rem 1.5rem; border-radius: .5rem; background: #4338ca; color: #fff; text-decoration: none }</style>`

// askPage's link has a target, so that Turbo, htmx and the like leave the click to the browser. turbo-visit-control makes Turbo
// show the page even if it asked for a frame's content.
var askPage = template.Must(template.New("").Parse(logoutPageHead + `<meta name="turbo-visit-control" content="reload">
<title>Logout</title>{{if .HasEnded}}<h1>You are signed out.</h1><p><a href="." target="_top">Continue</a>
{{- else}}<h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout, so nothing has happened.{{end}}
<p><a href="{{.Link}}" target="_top">Logout</a>`))

// askUser answers 403 with askPage, whose link has what r's query says, but the given logout_token. If the session of the link
// that was clicked has ended, the page says so: behind a service worker, the user would be asked again with each click.
func askUser(w http.ResponseWriter, r *http.Request, logoutToken string, hasEnded bool) {
	query := r.URL.Query()
	query.Set("logout_token", logoutToken)
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", r.RequestURI) // htmx 1 and 2 do not show a 403. With this, the browser itself asks again.
	}
	// In a frame, another site could have the link clicked. A policy of the app's is replaced, as it may forbid the style.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden) // Chromium and some routers use the answer to a prefetch for the click, but not an error.
	askPage.Execute(w, struct {
		Link     string
		HasEnded bool
	}{"?" + query.Encode(), hasEnded})
}

// logoutFlow asks Ory for a logout flow with r's cookies, which changes nothing. If nobody is signed in, it returns the zero
// LogoutFlow, without a LogoutUrl, and no error. The text of an error may be logged: see logoutError.
func (app *App) logoutFlow(ctx context.Context, r *http.Request, returnTo string) (ory.LogoutFlow, error) {
	cookies := strings.Join(r.Header["Cookie"], "; ") // A proxy may have split the header: RFC 9113, section 8.2.3.
	if cookies == "" {
		return ory.LogoutFlow{}, nil // Asking would only use up Ory's rate limit.
	}
	request := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookies)
	if returnTo != "" {
		request = request.ReturnTo(returnTo)
	}
	flow, resp, err := request.Execute()
	if err == nil && isHTTPURL(flow.GetLogoutUrl()) { // The getter takes nil, which the flow is if Ory answers null.
		return *flow, nil
	}
	return ory.LogoutFlow{}, logoutError(resp, err)
}

// logoutError returns nil if nobody is signed in, which only a 401 with session_inactive says, else why Ory gave no logout
// flow. That may be logged: it has 200 bytes at the most, and nothing secret, unless Ory's own words quote something.
func logoutError(resp *http.Response, err error) error {
	why := "no usable answer"
	cause := err
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		cause = urlErr.Err // The text of the url.Error quotes the URL.
		if !isHTTPURL(urlErr.URL) {
			why = "the URL of Ory is not an absolute http or https URL"
		}
	}
	// These say what is wrong with the connection. Others may quote what was sent over it.
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	if errors.As(cause, &netErr) || errors.As(cause, &certErr) || errors.Is(cause, http.ErrSchemeMismatch) ||
		errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) {
		why = cause.Error()
	}
	if resp != nil {
		var body struct {
			Error struct{ ID, Reason, Message string }
		}
		json.NewDecoder(resp.Body).Decode(&body) // client-go has put the body back. What is no JSON leaves this empty.
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
	o := url.URL{Scheme: u.Scheme, Host: u.Host}
	text := o.String()
	return text[:min(len(text), 200)]
}

const maxOryAnswer = 128 << 10 // bytes of a header or a body. Ory sends a few KB.

// newOryClient returns the client of an App. baseURL is Ory's public URL.
func newOryClient(baseURL string) *ory.APIClient {
	var http1 http.Protocols // Over HTTP/2, nginx and HAProxy drop all users' requests when one user's cookies are too large.
	http1.SetHTTP1(true)
	transport := &http.Transport{
		Protocols:              &http1,
		Proxy:                  http.ProxyFromEnvironment,
		MaxResponseHeaderBytes: maxOryAnswer,
		MaxIdleConnsPerHost:    1 << 20, // With the default, 2, most logouts of a busy app open a connection.
		IdleConnTimeout:        90 * time.Second,
		// Dials and TLS handshakes go on when the browser that waited for them has left.
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout: 3 * time.Second,
	}
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	cfg.HTTPClient = &http.Client{
		Transport: oryTransport{transport},
		// A redirect means a wrong URL, to be logged. Followed, it could take the cookies to another port.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return ory.NewAPIClient(cfg)
}

// oryTransport is a Transport that bounds what a broken Ory can cost.
type oryTransport struct{ *http.Transport }

func (t oryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		t.CloseIdleConnections() // If one connection is dead, so may be the idle ones, and each would fail a logout.
	case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body.Close() // It is the connection, and no context ends a read from that.
		resp.Body = http.NoBody
	case err == nil:
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxOryAnswer) // It is meant for requests, and works without a writer.
	}
	return resp, err
}
