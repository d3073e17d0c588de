// SPDX-License-Identifier: 0BSD

package main

import (
	"cmp"
	"context"
	"crypto/rand"
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
// no URL within 3 seconds. If r may not be the user's own doing, it answers 403 and a page that asks. In the end Ory sends
// the browser to the URL in the query's return_to, if allowed. https://www.ory.com/docs/kratos/self-service/flows/user-logout
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet { // The pattern "GET /logout" matches HEAD too.
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if !isUsersDoing(r) {
		askUser(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	returnTo := r.URL.Query().Get("return_to")
	logoutURL, err := app.logoutURL(ctx, r, returnTo)
	if err != nil && returnTo != "" && ctx.Err() == nil { // Ory may refuse return_to. The user clicked Logout all the same.
		slog.WarnContext(ctx, "return_to left out", "return_to", origin(returnTo), "err", err)
		logoutURL, err = app.logoutURL(ctx, r, "")
	}
	if err != nil && r.Context().Err() != context.Canceled { // Canceled would mean that the browser went away.
		slog.ErrorContext(ctx, "logout failed", "err", err)
	}
	http.Redirect(w, r, cmp.Or(logoutURL, "/"), http.StatusSeeOther)
}

// isUsersDoing reports whether r may be taken for the user's own doing. The session cookie does not tell: it also comes
// with other sites' links, with prefetches and with images. https://www.w3.org/TR/fetch-metadata/
func isUsersDoing(r *http.Request) bool {
	h, site, dest := r.Header, r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Dest")
	typed := site == "none" && h.Get("Sec-Fetch-User") == "?1" // WebKit also says "none" of reloads and the Back button.
	switch {
	// 1. Is it a prefetch or prerender? The user has not clicked yet, and may never do so.
	case h["Sec-Purpose"] != nil, h["Purpose"] != nil, h["X-Purpose"] != nil, h["X-Moz"] != nil, h["X-Sec-Purpose"] != nil:
		return false
	// 2. Who began it? Not another site. Old browsers do not tell, and on plain http (but for localhost) no browser does.
	case site != "" && site != "same-origin" && site != "same-site" && !typed:
		return false
	// 3. Did a service worker or a script stand between? Behind a worker, Firefox and WebKit call every request same-origin,
	// whoever began it. So only a click on askPage's link counts: other sites cannot read the cookie's value.
	case dest == "empty", h["Service-Worker-Navigation-Preload"] != nil:
		cookie, err := r.Cookie(logoutConfirm)
		return err == nil && cookie.Value != "" && cookie.Value == r.URL.Query().Get(logoutConfirm)
	}
	// 4. Where does the answer go? Images, frames and the like load without a click.
	return dest == "document" || dest == ""
}

const logoutConfirm = "logout_confirm" // names a cookie, and the query parameter that must be equal to it

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

// askUser answers 403 with askPage, whose link repeats r's query, return_to and all, and adds the cookie's value.
func askUser(w http.ResponseWriter, r *http.Request) {
	secret, query := rand.Text(), r.URL.Query()
	if cookie, err := r.Cookie(logoutConfirm); err == nil && cookie.Value != "" {
		secret = cookie.Value // A new one would break the link of the same page in another tab.
	}
	query.Set(logoutConfirm, secret)
	http.SetCookie(w, &http.Cookie{Name: logoutConfirm, Value: secret, MaxAge: 600, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", r.RequestURI) // htmx 1 and 2 do not show a 403, but do go where this says.
	}
	// No frame may show the page, as another site could have the link clicked. An app's own policy may forbid the style.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden) // A browser may keep another answer to a prefetch, and use it for the real click.
	askPage.Execute(w, "?"+query.Encode())
}

// logoutURL asks Ory for a logout flow with r's cookies, and returns its logout URL, or "" and no error if nobody is
// signed in. An error's text may be logged: at most 200 bytes, and nothing secret but what Ory's own reason may quote.
func (app *App) logoutURL(ctx context.Context, r *http.Request, returnTo string) (string, error) {
	cookies := strings.Join(r.Header["Cookie"], "; ") // A proxy may have split the header: RFC 9113, section 8.2.3.
	if cookies == "" {
		return "", nil // To ask Ory would use up its rate limit.
	}
	request := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookies)
	if returnTo != "" {
		request = request.ReturnTo(returnTo)
	}
	flow, resp, err := request.Execute()
	if err == nil && origin(flow.GetLogoutUrl()) != "" { // The flow is nil if the answer is null or empty.
		return flow.LogoutUrl, nil
	}
	why := loggable(err)
	if resp != nil {
		var answer map[string]struct{ ID, Reason, Message string }
		json.NewDecoder(resp.Body).Decode(&answer) // client-go has read the body, and put it back.
		oryError := answer["error"]
		switch location, _ := resp.Location(); {
		case resp.StatusCode == http.StatusUnauthorized && oryError.ID == "session_inactive":
			return "", nil
		case location != nil: // Most likely, the app has a wrong URL of Ory.
			why = "redirect to " + location.Scheme + "://" + location.Host
		case returnTo != "": // Ory's reason quotes it, and it may hold a secret.
			why = cmp.Or(oryError.ID, why)
		default:
			why = cmp.Or(oryError.Reason, oryError.Message, why)
		}
		why = fmt.Sprintf("status %d: %s", resp.StatusCode, why)
	}
	return "", errors.New(why[:min(len(why), 200)])
}

// loggable returns err's text, or "no usable answer" if that may quote a URL, a header or a body.
func loggable(err error) string {
	if urlErr, ok := err.(*url.Error); ok { // Its own text quotes the URL, and it is a net.Error whatever its cause.
		if err = urlErr.Err; origin(urlErr.URL) == "" {
			return "the URL of Ory is not an absolute http or https URL"
		}
	}
	netErr, certErr := new(net.Error), new(*tls.CertificateVerificationError)
	if errors.As(err, netErr) || errors.As(err, certErr) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err.Error()
	}
	return "no usable answer"
}

// origin returns the scheme and host of an absolute http or https URL, 200 bytes at the most, or "" for any other string.
func origin(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return ""
	}
	s = u.Scheme + "://" + u.Host
	return s[:min(len(s), 200)]
}

// newOryClient returns the client of an App. baseURL is Ory's public URL.
func newOryClient(baseURL string) *ory.APIClient {
	var http1 http.Protocols // Over HTTP/2, nginx and HAProxy drop all users' requests when one user's cookies are too large.
	http1.SetHTTP1(true)
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: strings.TrimRight(baseURL, "/")}}
	transport := oryTransport{&http.Transport{
		Protocols:              &http1,
		Proxy:                  http.ProxyFromEnvironment,
		MaxResponseHeaderBytes: 128 << 10, // Ory sends a few KB. RoundTrip limits the body to the same.
		MaxIdleConnsPerHost:    1 << 20,   // With the default, 2, most logouts of a busy app open a connection.
		IdleConnTimeout:        90 * time.Second,
	}}
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // They would get the cookies.
	cfg.HTTPClient = &http.Client{Transport: transport, CheckRedirect: noRedirects}
	return ory.NewAPIClient(cfg)
}

type oryTransport struct{ *http.Transport } // a RoundTripper for an Ory that may answer anything

func (t oryTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		t.CloseIdleConnections() // If one connection is dead, so may be the idle ones, and each would fail a logout.
	case err == nil && resp.StatusCode == http.StatusSwitchingProtocols:
		resp.Body.Close() // It is the connection, and no context ends a read from that.
		resp.Body = http.NoBody
	case err == nil:
		resp.Body = http.MaxBytesReader(nil, resp.Body, t.MaxResponseHeaderBytes)
	}
	return resp, err
}
