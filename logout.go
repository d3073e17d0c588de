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
// no URL within 3 seconds; or with 403 and a page that asks, if the request may not be the user's own doing. Ory then sends
// the browser to the query parameter return_to, if allowed: https://www.ory.com/docs/kratos/self-service/flows/user-logout
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
	if err != nil && returnTo != "" && ctx.Err() == nil { // Ory may not allow it. The user must be signed out all the same.
		slog.WarnContext(ctx, "return_to left out", "err", err)
		logoutURL, err = app.logoutURL(ctx, r, "")
	}
	if err != nil && r.Context().Err() != context.Canceled { // It is canceled when the browser goes away.
		slog.ErrorContext(ctx, "logout failed", "err", err)
	}
	http.Redirect(w, r, cmp.Or(logoutURL, "/"), http.StatusSeeOther)
}

// isUsersDoing reports whether the browser vouches that no other site and no program began r. The session cookie does
// not: it comes with other sites' links too, and with prefetches and images. https://www.w3.org/TR/fetch-metadata/
func isUsersDoing(r *http.Request) bool {
	h, site, dest := r.Header, r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Dest")
	typed := site == "none" && h.Get("Sec-Fetch-User") == "?1"
	switch {
	// 1. Is it a prefetch or prerender? The user has not clicked yet, and may never do so.
	case h["Sec-Purpose"] != nil, h["Purpose"] != nil, h["X-Purpose"] != nil, h["X-Moz"] != nil, h["X-Sec-Purpose"] != nil:
		return false
	// 2. Who began it? A site of "none" alone does not tell: WebKit also sends it for reloads and the Back button, whoever
	// began the visit. No site comes from old browsers, and on plain http (but for localhost) from all.
	case site != "" && site != "same-origin" && site != "same-site" && !typed:
		return false
	// 3. Did a service worker or a script stand between? Firefox and WebKit then say that it began the request, whoever
	// did. What can still be told from the rest is a click on askPage's link, as no other page knows the cookie's value.
	case dest == "empty", h["Service-Worker-Navigation-Preload"] != nil:
		cookie, err := r.Cookie(logoutConfirm)
		return err == nil && cookie.Value != "" && cookie.Value == r.URL.Query().Get(logoutConfirm)
	}
	// 4. Where does the answer go? Images, frames and the like load without a click.
	return dest == "document" || dest == ""
}

const logoutConfirm = "logout_confirm" // names a cookie, and the query parameter of askPage's link that is equal to it

// logoutPageHead begins a page whose links look like buttons.
const logoutPageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><style>
	body { max-width: 36rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.4 system-ui, sans-serif; overflow-wrap: break-word }
	a { display: inline-block; padding: .6rem 1.5rem; border-radius: .5rem; background: #4338ca; color: #fff; text-decoration: none }</style>`

// askPage has a meta element, and its link a target, so that Turbo, htmx and the like leave both to the browser.
var askPage = template.Must(template.New("").Parse(logoutPageHead + `<meta name="turbo-visit-control" content="reload">
<title>Logout</title><h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout, so nothing has happened.
<p><a href="{{.}}" target="_top">Logout</a>`))

// askUser answers 403 with askPage, whose link is r's own URL, return_to and all.
func askUser(w http.ResponseWriter, r *http.Request) {
	secret, query := rand.Text(), r.URL.Query()
	if cookie, err := r.Cookie(logoutConfirm); err == nil && cookie.Value != "" {
		secret = cookie.Value // A new one would break the link of the same page in another tab.
	}
	query.Set(logoutConfirm, secret)
	http.SetCookie(w, &http.Cookie{Name: logoutConfirm, Value: secret, MaxAge: 600, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	w.Header().Set("HX-Redirect", r.RequestURI) // for htmx 1 and 2, which do not show a 403, but do go where this says
	// In a frame, another site could have the user click the link. The app's own policy may forbid the page's style.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden) // A browser may keep what answers a prefetch for the real click, but not a 403.
	askPage.Execute(w, "?"+query.Encode())
}

// logoutURL asks Ory for a logout flow with r's cookies, and returns the flow's URL, or "" and no error if nobody is
// signed in. An error's text may be logged: it holds nothing secret and at most 200 bytes.
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
	why := connectionError(err)
	if resp != nil {
		var answer map[string]struct{ ID, Reason, Message string }
		json.NewDecoder(resp.Body).Decode(&answer) // client-go has read the body, and put it back.
		oryError := answer["error"]
		location, notFound := resp.Location()
		why = cmp.Or(oryError.Reason, oryError.Message, why)
		switch {
		case resp.StatusCode == http.StatusUnauthorized && oryError.ID == "session_inactive":
			return "", nil
		case notFound == nil: // Most likely, the app has a wrong URL of Ory.
			why = "redirect to " + location.Scheme + "://" + location.Host
		case returnTo != "": // Ory's reason quotes it, and it may hold a secret.
			why = cmp.Or(oryError.ID, connectionError(err)) + ", return_to on " + cmp.Or(origin(returnTo), "no host")
		}
		why = fmt.Sprintf("status %d: %s", resp.StatusCode, why)
	}
	return "", errors.New(why[:min(len(why), 200)])
}

// connectionError returns the text of err if err is about the connection to Ory. Others may quote URLs, headers and bodies.
func connectionError(err error) string {
	if urlErr, ok := err.(*url.Error); ok { // It quotes a URL, and is a net.Error whatever its cause.
		if err = urlErr.Err; origin(urlErr.URL) == "" {
			return "the URL of Ory is not an absolute http or https URL"
		}
	}
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	if errors.As(err, &netErr) || errors.As(err, &certErr) || errors.Is(err, http.ErrSchemeMismatch) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err.Error()
	}
	return "no usable answer"
}

// origin returns the scheme and host of an absolute http or https URL, or "" of any other string.
func origin(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
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
		MaxResponseHeaderBytes: 128 << 10, // Ory sends a few thousand. RoundTrip limits the body to as many.
		MaxIdleConnsPerHost:    1 << 20,   // With the default, 2, most logouts of a busy app open a connection.
		IdleConnTimeout:        90 * time.Second,
	}}
	// A redirect that is followed takes the cookies to other ports and subdomains of Ory's host.
	noRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.HTTPClient = &http.Client{Transport: transport, CheckRedirect: noRedirects}
	return ory.NewAPIClient(cfg)
}

// oryTransport is a RoundTripper for an Ory that may answer anything.
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
		resp.Body = http.MaxBytesReader(nil, resp.Body, t.MaxResponseHeaderBytes)
	}
	return resp, err
}
