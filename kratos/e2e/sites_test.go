package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/chromedp/cdproto/preload"
)

// bySite are the outcomes of what a page does on another port of the app's host, which is the same site, and of what it does
// on another site. With another site's images and the like, the session cookie does not come.
type bySite struct{ same, cross outcome }

func rowsBySite(name string, act func(u *user, site string), want, sample bySite) []row {
	return []row{
		{name: name + " on the same site", act: func(u *user) { act(u, sameSite) }, want: want.same, sample: sample.same},
		{name: name + " on another site", act: func(u *user) { act(u, crossSite) }, want: want.cross, sample: sample.cross},
	}
}

// siteRows are of pages that lead to /logout, or load it.
func siteRows(engine string) (rows []row) {
	click := func(body string) func(*user, string) { return func(u *user, site string) { u.clickOn(site, body) } }
	look := func(body string) func(*user, string) { return func(u *user, site string) { u.openPage(site, body) } }
	newTab := func(body string) func(*user, string) {
		return func(u *user, site string) {
			u.clickOn(site, body)
			u.browser = u.otherTab().browser
		}
	}
	newTabFromSameSite := signsOut
	if engine == "webkit" { // It says that another site led there.
		newTabFromSameSite = asks
	}
	for _, way := range []struct {
		name     string
		act      func(u *user, site string)
		sameSite outcome
	}{
		{"link", click(link), signsOut},
		{"link to a new tab", newTab(`<a href="LOGOUT" target="_blank">Logout</a>`), newTabFromSameSite},
		{"window without opener", newTab(`<button onclick="open('LOGOUT', '', 'noopener')">Logout</button>`), newTabFromSameSite},
		{"link that another site redirects", click(`<a href="` + crossSite + `/page?redirect=LOGOUT">Logout</a>`), asks},
		{"form", click(`<form action="LOGOUT"><button>Logout</button></form>`), signsOut},
		{"script that sets location", look(`<script>location = "LOGOUT"</script>`), signsOut},
		{"meta refresh", look(`<meta http-equiv="refresh" content="0; url=LOGOUT">`), signsOut},
	} {
		rows = append(rows, rowsBySite(way.name, way.act,
			bySite{same: way.sameSite, cross: asks}, bySite{same: signsOut, cross: signsOut})...)
	}
	for _, way := range []struct{ name, body string }{
		{"image", `<img src="LOGOUT">`},
		{"style sheet", `<link rel="stylesheet" href="LOGOUT">`},
		{"frame", `<iframe src="LOGOUT"></iframe>`},
		{"fetch", `<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`},
	} {
		rows = append(rows, rowsBySite(way.name, look(way.body),
			bySite{same: refused, cross: refused}, bySite{same: unseen, cross: harmless})...)
	}
	return rows
}

// preloadRows are of pages that have the browser fetch a URL before the user clicks. What it gets then must not be what a
// click shows. These engines' requests for /logout would be refused without their prefetch header too: their destination
// is "empty", or their site "none".
func preloadRows(engine string) (rows []row) {
	clicks := func(name, head string) []row {
		return []row{
			{name: "click after a " + name, act: func(u *user) {
				u.openPage(u.url, head+link)
				u.waitForAnswer(http.StatusForbidden)
				u.clickLink()
			}, want: signsOut},
			{name: "click after a " + name + " and then a sign-in", act: func(u *user) {
				u.setSession(sessionCookie + "=; Max-Age=0")
				u.openPage(u.url, head+link)
				u.waitForAnswer(http.StatusForbidden)
				u.setSession(u.session)
				u.clickLink()
			}, want: signsOut},
		}
	}
	if engine != "webkit" { // which has no prefetch
		const name, prefetch = "prefetch by a link", `<link rel="prefetch" href="LOGOUT">`
		rows = append(rows, rowsBySite(name, func(u *user, site string) { u.openPage(site, prefetch) },
			bySite{same: refused, cross: refused}, bySite{same: unseen, cross: harmless})...)
		rows = append(rows, clicks(name, prefetch)...)
	}
	if engine != "chromium" { // which alone has speculation rules, and says why it does not follow them
		return rows
	}
	for _, rule := range []struct{ name, whyUnsent string }{
		{"prefetch", string(preload.PrefetchStatusPrefetchNotEligibleUserHasCookies)},
		{"prerender", string(preload.PrerenderFinalStatusCrossSiteNavigationInInitialNavigation)},
	} {
		name := rule.name + " by speculation rules"
		script := func(path string) string {
			return fmt.Sprintf(`<script type="speculationrules">{%q: [{"source": "list", "urls": [%q]}]}</script>`, rule.name, path)
		}
		rows = append(rows, rowsBySite(name, func(u *user, site string) {
			said := preloadSays(u, rule.whyUnsent)
			u.openPage(site, script("LOGOUT"))
			if site == crossSite {
				retry(u.t, rule.whyUnsent, said)
			}
		}, bySite{same: refused, cross: unsent}, bySite{same: unseen, cross: unsent})...)
		rows = append(rows, clicks(name, script("LOGOUT"))...)
		rows = append(rows, row{name: "click after a " + name + " of the home page", act: func(u *user) {
			u.openHome(landing)
			const ready = "Ready"
			said := preloadSays(u, ready)
			u.openPage(u.url, script("/")+link)
			retry(u.t, ready, said)
			u.clickLink()
		}, want: signsOut})
	}
	return rows
}

// attackRows are of other sites' ways around the question, and of what else leads to it.
func attackRows() []row {
	// typed has the user type the URL of another site's page, which redirects to /logout from its second time on.
	typed := func(act func(u *user)) func(u *user) {
		return func(u *user) {
			u.openHome(newOrigin("https", proxy))
			var seen atomic.Bool
			port := serve("https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/page" && seen.Swap(true) {
					http.Redirect(w, r, u.logoutURL, http.StatusFound)
					return
				}
				pageHandler(w, r)
			}))
			u.openPage(fmt.Sprintf("https://127.0.0.1:%d", port), `<a href="/second">Second page</a>
				<script>onpageshow = event => { if (event.persisted) location.reload() }</script>`) // Chromium may show a copy.
			act(u)
			u.waitForAnswer(http.StatusForbidden)
		}
	}
	return []row{
		{name: "history.back() by another site to the question, on https", act: func(u *user) {
			u.openHome(newOrigin("https", proxy))
			u.clickOn(crossSiteTLS, link)
			u.waitForQuestion()
			u.openPage(crossSiteTLS, "")
			u.lastStatus.Store(0)
			u.script(`history.back()`)
			u.waitForAnswer(http.StatusForbidden)
		}, want: asks},
		{name: "reload of the question", act: func(u *user) {
			u.clickOn(crossSite, link)
			u.waitForQuestion()
			u.lastStatus.Store(0)
			u.must(u.reload())
			u.waitForAnswer(http.StatusForbidden)
		}, want: asks},
		{name: "link on another site, with an allowed return_to", act: func(u *user) {
			u.lands = landing.url + "/?after=logout"
			u.clickOn(crossSite, `<a href="LOGOUT?return_to=`+url.QueryEscape(u.lands)+`">Logout</a>`)
		}, want: asks},
		{name: "click on the question in a tab that a sandboxed frame opened", act: func(u *user) {
			u.openPage(u.url, `<iframe sandbox="allow-scripts allow-popups" srcdoc='
				<a href="LOGOUT" target="_blank" style="position: fixed; inset: 0">Logout</a>'></iframe>`)
			u.waitForPaint() // Before that, Chromium gives the click to the page around the frame.
			u.mouse("iframe", 1)
			tab := u.otherTab()
			tab.waitForQuestion()
			tab.clickLink() // The tab is sandboxed like the frame: to the browser, this too is another site's link.
			tab.waitFor(u.lands, signedOut)
			u.open(u.lands) // in the first tab, whose scripts can ask for the cookie
		}, want: signsOut},
		{name: "link on another site, with planted secrets", act: func(u *user) { u.clickPlanted("") }, want: asks},
		{name: "history.back() after a click, to a typed URL that another site now redirects", act: typed(func(u *user) {
			u.clickLink()
			u.waitForTrue(`location.pathname === "/second"`)
			u.script(`history.back()`)
		}), want: asks},
		{name: "history.back() to a typed URL that another site now redirects", act: typed(func(u *user) {
			u.script(`document.querySelector("a").click()`) // To Chromium, this is no click.
			u.waitForTrue(`location.pathname === "/second"`)
			u.script(`history.back()`)
		}), want: asks},
		{name: "reload of a typed URL that another site now redirects", act: typed(func(u *user) { u.must(u.reload()) }), want: asks},
	}
}

// clickPlanted has the user click a link on another site that has a cookie and a token of its own.
func (u *user) clickPlanted(query string) {
	u.t.Helper()
	u.open(sameSite + "/page?cookie=logout_confirm=planted")
	u.clickOn(crossSite, `<a href="LOGOUT?logout_confirm=planted&logout_token=planted&`+query+`">Logout</a>`)
}
