package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/preload"
)

// attack is a page that tries to sign out a user who is led to it and, at the most, clicks there.
type attack struct {
	kind      string
	crossSite bool   // the page is on another site than the app; else on another port of its site
	body      string // of the page; LOGOUT is the logout URL, COUNT the value of its n
	click     bool
	navigates bool   // the browser leaves the page
	only      string // the engines that have it, if not all
	unsent    string // why Chromium does not ask for LOGOUT at all, in its own words
	sample    bool   // Ory's sample signs the user out
}

var attacks = []attack{
	{kind: "link", crossSite: true, body: `<a href="LOGOUT">Kittens</a>`, click: true, navigates: true, sample: true},
	{kind: "form", crossSite: true, body: `<form action="LOGOUT"><input type="hidden" name="n" value="COUNT"><button>Kittens</button></form>`, click: true, navigates: true, sample: true},
	{kind: "script", crossSite: true, body: `<script>location = "LOGOUT"</script>`, navigates: true, sample: true},
	{kind: "meta refresh", crossSite: true, body: `<meta http-equiv="refresh" content="0; url=LOGOUT">`, navigates: true, sample: true},
	{kind: "img", crossSite: true, body: `<img src="LOGOUT">`},
	{kind: "style sheet", crossSite: true, body: `<link rel="stylesheet" href="LOGOUT">`},
	{kind: "iframe", crossSite: true, body: `<iframe src="LOGOUT"></iframe>`},
	{kind: "fetch", crossSite: true, body: `<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`},
	{kind: "link rel=prefetch", crossSite: true, only: "chromium firefox", body: `<link rel="prefetch" href="LOGOUT">`},
	{kind: "speculation-rules prefetch", crossSite: true, only: "chromium", body: prefetchRules, unsent: string(preload.PrefetchStatusPrefetchNotEligibleUserHasCookies)},
	{kind: "speculation-rules prerender", crossSite: true, only: "chromium", body: prerenderRules, unsent: string(preload.PrerenderFinalStatusCrossSiteNavigationInInitialNavigation)},
	{kind: "img", body: `<img src="LOGOUT">`, sample: true},
	{kind: "style sheet", body: `<link rel="stylesheet" href="LOGOUT">`, sample: true},
	{kind: "iframe", body: `<iframe src="LOGOUT"></iframe>`, sample: true},
	{kind: "fetch", body: `<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`, sample: true},
	{kind: "link rel=prefetch", only: "chromium firefox", body: `<link rel="prefetch" href="LOGOUT">`, sample: true},
	{kind: "speculation-rules prefetch", only: "chromium", body: prefetchRules, sample: true},
	{kind: "speculation-rules prerender", only: "chromium", body: prerenderRules, sample: true},
}

// run runs the attack on the logout route of site, from one of two other sites, and checks that site answers with
// status, or that Chromium says that it does not send the request.
func (a attack) run(u *user, site string, status int) {
	u.t.Helper()
	logout, n := uniqueLogout(site)
	page := sameSite
	if a.crossSite {
		page = crossSite
	}
	unsent := func() bool { return false }
	if a.unsent != "" {
		unsent = preloadSays(u, a.unsent)
	}
	u.openHTML(page, strings.NewReplacer("LOGOUT", logout, "COUNT", fmt.Sprint(n)).Replace(a.body))
	if a.click {
		u.clickLink()
	}
	waitFor(u.t, "the attack to reach "+logout, func() bool { return visits.last(logout).status != 0 || unsent() })
	if a.unsent != "" {
		status = 0
	}
	if got := visits.last(logout).status; got != status {
		u.t.Errorf("got status %d, want %d", got, status)
	}
	if a.navigates {
		waitFor(u.t, "the next page", func() bool {
			there, err := u.browser.eval(`document.readyState + " " + location.href`)
			return err == nil && strings.HasPrefix(there, "complete ") && !strings.HasPrefix(there, "complete "+page)
		})
	}
}

func (a attack) name() string {
	name := a.kind + " on a same-site page"
	if a.crossSite {
		name = a.kind + " on another site"
	}
	if a.unsent != "" {
		name += ", which Chromium does not send"
	}
	return name
}

func testAttacks(t *testing.T, engine string, b browser) {
	for _, attack := range attacks {
		if attack.only != "" && !strings.Contains(attack.only, engine) {
			continue
		}
		t.Run(attack.name(), func(t *testing.T) {
			u := newUser(t, b)
			attack.run(u, appURL, http.StatusForbidden)
			u.checkStillSignedIn()
			u.clickLink()
			u.checkSignedOut(appURL + "/")
		})
	}
}

// The page of a refused logout, in another page's frame: a click on its link would be one on the app's own page.
func testFrames(t *testing.T, b browser) {
	for _, site := range []string{crossSite, sameSite} {
		for _, ctrl := range []bool{false, true} {
			t.Run(fmt.Sprintf("same site %t, Ctrl %t", site == sameSite, ctrl), func(t *testing.T) {
				u := newUser(t, b)
				logout, _ := uniqueLogout(appURL)
				u.openHTML(crossSite, link(logout, ""))
				u.clickLink()
				u.waitFor(logout, "Logout")
				x, y := u.find("a")

				logout, _ = uniqueLogout(appURL)
				u.openHTML(site, `<iframe src="`+logout+`" onload="document.title = 'loaded'" style="position: fixed; inset: 0; width: 100%; height: 100%; border: 0"></iframe>`)
				waitForVisit(t, logout, http.StatusForbidden)
				waitFor(t, "the frame", func() bool { return u.eval("document.title") == "loaded" })
				u.check(u.browser.click(x, y, ctrl))
				time.Sleep(time.Second) // A click that leads nowhere can only be waited for so long.
				u.checkStillSignedIn()
			})
		}
	}
}

// The control: the attacks marked sample do sign out the user of an app with Ory's sample, so the tests above can see a
// logout. So do clicks, but for one.
func testSample(t *testing.T, b browser) {
	port := freePort()
	if err := serveApp(port, nil, nil, sampleHandler); err != nil {
		t.Fatal(err)
	}
	sampleURL := fmt.Sprintf("http://localhost:%d", port)
	for _, attack := range attacks {
		t.Run(attack.name(), func(t *testing.T) {
			u := newUser(t, b)
			attack.run(u, sampleURL, http.StatusSeeOther)
			if attack.sample {
				u.waitForLogout()
				return
			}
			u.checkStillSignedIn()
		})
	}
	for _, row := range []struct {
		name string
		open func(u *user)
	}{
		{"click", func(u *user) { u.openApp(nil, nil) }},
		{"click with a service worker", func(u *user) { u.openWorkerApp(passOnWorker, nil) }},
		{"click with a service worker that rebuilds requests", func(u *user) { u.openWorkerApp(rebuildWorker, nil) }},
		{"click with Turbo", func(u *user) { turbo.open(u, "") }},
		{"link that another site redirects", func(u *user) {
			u.openHTML(sameSite, link(crossSite+"/?redirect="+url.QueryEscape(u.openApp(nil, nil)), ""))
		}},
		{"link on another site with a service worker", func(u *user) {
			u.openHTML(crossSite, link(u.openWorkerApp(passOnWorker, nil), ""))
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := newUser(t, b)
			u.logout = sampleHandler
			row.open(u)
			u.clickLink()
			u.waitForLogout()
		})
	}
	t.Run("click with htmx, which does not follow the redirect to Kratos", func(t *testing.T) {
		u := newUser(t, b)
		u.logout = sampleHandler
		htmx.open(u, "")
		u.script(`addEventListener("htmx:error", () => { document.title = "failed" })`)
		u.clickLink()
		waitFor(t, "htmx to give up", func() bool { return u.eval("document.title") == "failed" })
		u.checkStillSignedIn()
	})
}

// waitForLogout waits until Kratos has ended the user's session.
func (u *user) waitForLogout() {
	u.t.Helper()
	waitFor(u.t, "the session to end", func() bool {
		status, err := whoami(shared, u.session)
		return err == nil && status == http.StatusUnauthorized
	})
}

// sampleHandler does what the logout route of Ory's sample does, and no more.
func sampleHandler(w http.ResponseWriter, r *http.Request) {
	req, _ := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/self-service/logout/browser", shared.KratosPort), nil)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cookie", r.Header.Get("Cookie"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	defer resp.Body.Close()
	var flow struct {
		LogoutURL string `json:"logout_url"`
	}
	json.NewDecoder(resp.Body).Decode(&flow)
	http.Redirect(w, r, cmp.Or(flow.LogoutURL, "/"), http.StatusSeeOther)
}
