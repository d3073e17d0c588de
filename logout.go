// SPDX-License-Identifier: 0BSD

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	ory "github.com/ory/client-go"
)

// homeURL is where Cancel leads, and Logout if there is no flow. Its page must say whether the user is signed in.
const homeURL = "/"

// logoutHandler signs out a user who clicked Logout. It asks Ory for a logout flow with the request's cookies, and answers
// 303 to the flow's logout URL, where Ory ends the session, or to homeURL if there is no flow. Ory then sends the browser
// to the URL in the query's return_to, if it allows that: https://www.ory.com/docs/kratos/self-service/flows/user-logout
//
// A click is a request that the browser vouches for, or whose query has the session's logout token. All else, and each
// prefetch, is answered with 403 and a page that asks the user. That page's link has the token, if Ory gave one.
func (app *App) logoutHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	query := r.URL.Query()
	if isPrefetch(r.Header) {
		askUser(w, r, "?"+query.Encode()) // Encode hides colons, for which html/template may refuse a link.
		return
	}
	// Without this, Chromium may show pages after the logout that it fetched before, and they say "signed in".
	w.Header().Set("Clear-Site-Data", `"prefetchCache", "prerenderCache"`)

	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	// With an error, flow is zero. It has no return_to yet: Ory refuses one only if the user is signed in, and another site
	// could time that.
	flow, err := app.logoutFlow(ctx, r, "")

	// Ory gives the token only for the session's cookie, so no other site knows it.
	token := query.Get("logout_token")
	clicked := browserVouches(r.Header) || (token != "" && token == flow.LogoutToken)
	if !clicked {
		link := homeURL // Without a token, nobody is signed in or Ory fails, and the home page says which.
		if flow.LogoutToken != "" {
			query.Set("logout_token", flow.LogoutToken)
			link = "?" + query.Encode()
		}
		askUser(w, r, link)
		return
	}

	// Only a click that fails is an error, and only if the browser still waits: the context is canceled when it leaves.
	if err != nil && ctx.Err() != context.Canceled {
		slog.ErrorContext(ctx, "logout failed", "err", err)
	}
	if returnTo := query.Get("return_to"); returnTo != "" && flow.LogoutUrl != "" {
		// Ory gives no flow for a return_to that it does not allow. The flow in hand signs the user out without it.
		withReturnTo, err := app.logoutFlow(ctx, r, returnTo)
		if err == nil {
			flow = withReturnTo
		} else if ctx.Err() != context.Canceled {
			slog.WarnContext(ctx, "return_to left out", "err", err)
		}
	}
	http.Redirect(w, r, cmp.Or(flow.LogoutUrl, homeURL), http.StatusSeeOther)
}

// isPrefetch reports whether h is the header of a prefetch or prerender: the user has not clicked yet, and may never do so.
// X-Purpose and X-Moz are older browsers', X-Sec-Purpose is Turbo's.
func isPrefetch(h http.Header) bool {
	return cmp.Or(h.Get("Sec-Purpose"), h.Get("Purpose"), h.Get("X-Purpose"), h.Get("X-Moz"), h.Get("X-Sec-Purpose")) != ""
}

// browserVouches reports whether the browser says, in the header h, that a page of this site led here and that the answer
// fills a tab. On plain http, its silence is a yes. https://www.w3.org/TR/fetch-metadata/
func browserVouches(h http.Header) bool {
	switch h.Get("Sec-Fetch-Site") {
	case "same-origin", "same-site": // A page of this site led here.
	case "":
		// On https, today's browsers send the header, and most proxies that end https say so: its absence is a no. On plain
		// http, browsers send it to localhost only: its absence is a yes, or each click would be asked about.
		if strings.HasPrefix(h.Get("X-Forwarded-Proto"), "https") {
			return false
		}
	default:
		// "cross-site" is another site. "none" is a typed URL, but in WebKit also Back or a reload, whoever led there first.
		return false
	}

	switch h.Get("Sec-Fetch-Dest") {
	case "document", "": // The answer fills a tab, or the browser does not tell.
	default:
		// The answer to an image, a frame or a fetch ("empty") fills no tab. A service worker's fetch also hides who led there:
		// Firefox and WebKit call it "same-origin", even for another site's link.
		return false
	}

	// A service worker's navigation preload hides it, too, and says "document". The worker sets its value, which may be empty.
	_, isPreload := h["Service-Worker-Navigation-Preload"]
	return !isPreload
}

// pageHead begins each page of the app.
const pageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><style>
	body { max-width: 36rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.4 system-ui, sans-serif; overflow-wrap: break-word }
	a { display: inline-block; padding: .6rem 1.5rem; color: inherit }
	.button { border-radius: .5rem; background: #4338ca; color: #fff; text-decoration: none }</style>`

// askPage asks the user. With the target, Turbo, htmx and the like leave the click to the browser. With turbo-visit-control,
// Turbo loads it as a page, also when it wanted the content of a Turbo frame.
var askPage = template.Must(template.New("").Parse(pageHead + `<meta name="turbo-visit-control" content="reload">
<title>Logout</title><h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout.
<p><a class="button" href="{{.Logout}}" target="_top">Logout</a> <a href="{{.Cancel}}" target="_top">Cancel</a>`))

// askUser answers 403 with askPage, whose Logout leads to link.
func askUser(w http.ResponseWriter, r *http.Request, link string) {
	if r.Header.Get("HX-Request") != "" {
		w.Header().Set("HX-Redirect", r.RequestURI) // htmx 1 and 2 show no 403. With this, the browser loads the URL.
	}
	// In a frame, another site could trick the user into a click on Logout (clickjacking). This also replaces a policy of the
	// app's, which may forbid the page's style.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(http.StatusForbidden) // Browsers and scripts keep a prefetched answer for the click, but no error.
	_ = askPage.Execute(w, struct{ Logout, Cancel string }{link, homeURL})
}

// logoutFlow asks Ory for a logout flow with r's cookies, which changes nothing. If nobody is signed in, it returns the zero
// LogoutFlow, whose LogoutUrl is empty, and no error. With an error, too, it returns the zero one. Errors are safe to log: they
// have Ory's status and error.id, or the client's own words, which may name the URL that was tried.
func (app *App) logoutFlow(ctx context.Context, r *http.Request, returnTo string) (ory.LogoutFlow, error) {
	cookies := strings.Join(r.Header["Cookie"], "; ") // HTTP/2 splits it, and some proxies pass that on, despite RFC 9113.
	if cookies == "" {
		return ory.LogoutFlow{}, nil // Asking would only use up Ory's rate limit.
	}
	request := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Cookie(cookies)
	if returnTo != "" {
		// Ory checks the host of a return_to. An opaque URL, such as mailto:me, has none that it could check.
		if u, err := url.Parse(returnTo); err != nil || u.Opaque != "" {
			return ory.LogoutFlow{}, errors.New("return_to is no URL, or an opaque one")
		}
		request = request.ReturnTo(returnTo)
	}
	flow, resp, err := request.Execute()
	switch {
	case err == nil && flow.GetLogoutUrl() != "": // The getter takes nil, which is what null is decoded to.
		return *flow, nil
	case err == nil:
		err = errors.New("no logout URL")
	case resp == nil:
		return ory.LogoutFlow{}, err
	}
	var answer struct{ Error struct{ ID string } }
	_ = json.NewDecoder(resp.Body).Decode(&answer) // client-go has put the body back. If it is no JSON, there is no ID.
	// Without the ID, a 401 may be a gateway's, and the user still signed in.
	if resp.StatusCode == http.StatusUnauthorized && answer.Error.ID == "session_inactive" {
		return ory.LogoutFlow{}, nil
	}
	return ory.LogoutFlow{}, fmt.Errorf("no logout flow: Ory answered %d: %s", resp.StatusCode, cmp.Or(answer.Error.ID, err.Error()))
}
