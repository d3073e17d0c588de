package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/preload"
)

// outcome is what comes of a request for /logout.
type outcome string

const (
	signsOut outcome = "signs out"
	asks     outcome = "signs out one click later" // on the page that asks, or the question for short
	refused  outcome = "is refused"                // where nobody sees the question
	unsent   outcome = "is not sent"               // by the browser
	stuck    outcome = "shows the home page"       // by a service worker, which does not send it
	canceled outcome = "leads home, still signed in"
	untold   outcome = "leads home, which cannot tell" // whether the user is signed in
	unseen   outcome = "signs out unseen"              // by Ory's sample: the user looks at another page
	harmless outcome = "is answered, and does nothing" // by Ory's sample
)

// row is what a user does, or what a page does to a user, who is signed in and on the app's home page.
type row struct {
	name   string
	act    func(u *user)
	want   outcome
	sample outcome // in an app with the logout route of Ory's sample, in Chromium; "" if it was not tried
}

func testRows(t *testing.T, engine string, b browser, route http.Handler) {
	for _, rows := range [][]row{ownRows(), siteRows(engine), preloadRows(engine), attackRows(), workerRows(), libraryRows()} {
		for _, row := range rows {
			want := row.want
			if route != proxy {
				want = row.sample
			}
			if want == "" || interrupted.Err() != nil {
				continue
			}
			t.Run(row.name+": "+string(want), func(t *testing.T) {
				u := newUser(t, b, route)
				row.act(u)
				u.expect(want)
			})
		}
	}
}

func (u *user) expect(want outcome) {
	u.t.Helper()
	switch want {
	case signsOut:
		u.checkSignedOut()
	case asks:
		u.waitForQuestion()
		checkWhoami(u.t, shared, u.session, http.StatusOK)
		u.clickLink()
		u.checkSignedOut()
	case refused:
		u.waitForAnswer(http.StatusForbidden)
		u.checkSignedIn()
	case stuck:
		u.waitFor(u.logoutURL, signedIn)
		u.expect(unsent)
	case canceled:
		u.waitFor(u.url+"/", signedIn)
	case untold:
		u.waitFor(u.url+"/", unknown)
	case unsent:
		u.checkSignedIn()
		if got := u.lastStatus.Load(); got != 0 {
			u.t.Errorf("got an answer %d of %s, want none", got, u.logoutURL)
		}
	case unseen:
		retry(u.t, "the session to end", func() error {
			if got, err := whoami(shared, u.session); err != nil || got != http.StatusUnauthorized {
				return fmt.Errorf("got %d, %v", got, err)
			}
			return nil
		})
	case harmless:
		u.waitForAnswer(http.StatusSeeOther)
		u.checkSignedIn()
	}
}

const link = `<a href="LOGOUT">Logout</a>`

func linkReturnTo(to string) string {
	return `<a href="LOGOUT?return_to=` + url.QueryEscape(to) + `">Logout</a>`
}

// clickOn opens a page with body on a site, and clicks its first link or button.
func (u *user) clickOn(site, body string) {
	u.t.Helper()
	u.openPage(site, body)
	u.clickLink()
}

// signOutInOtherTab opens a page, which says text, in two tabs, and signs out in one of them. The other is u's then.
func (u *user) signOutInOtherTab(address, text string) {
	u.t.Helper()
	u.clickOn(crossSite, `<a href="`+address+`" target="_blank">Page</a>`)
	other := u.otherTab()
	other.waitFor(address, text)
	u.open(address)
	u.waitFor(address, text)
	u.clickLink()
	u.checkSignedOut()
	u.browser = other.browser
	u.lands = u.url + "/"
}

// ownRows are of what users do in the app itself.
func ownRows() []row {
	slowly := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // as if Ory were far away from the app
		time.Sleep(200 * time.Millisecond)
		proxy.ServeHTTP(w, r)
	})
	return []row{
		{name: "click on the home page", act: func(u *user) { u.clickLink() }, want: signsOut, sample: signsOut},
		{name: "Tab and Enter on the home page", act: func(u *user) { u.must(u.press("\t\r")) }, want: signsOut},
		{name: "typed URL", act: func(u *user) { u.open(u.logoutURL) }, want: asks, sample: signsOut},
		{name: "click in a second tab after a logout", act: func(u *user) {
			u.signOutInOtherTab(u.url+"/", signedIn)
			u.clickLink()
		}, want: signsOut},
		{name: "Back button after a logout", act: func(u *user) {
			before := landing.url + "/?before=logout"
			u.open(before)
			u.waitFor(before, signedIn)
			u.clickLink()
			u.checkSignedOut()
			u.lands = before
			u.must(u.back())
		}, want: signsOut},
		{name: "double click, with a slow Ory", act: func(u *user) {
			u.openHome(newOrigin("http", slowly))
			u.mouse(firstLink, 2)
		}, want: signsOut},
		{name: "double click on the question, with a slow Ory", act: func(u *user) {
			u.openHome(newOrigin("http", slowly))
			u.clickOn(crossSite, link)
			u.waitForQuestion()
			u.mouse(firstLink, 2)
		}, want: signsOut},
		{name: "Cancel on the question", act: func(u *user) {
			u.open(u.logoutURL)
			u.waitForQuestion()
			u.mouse("a + a", 1)
		}, want: canceled},
	}
}

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
	rows = append(rows, rowsBySite("link with an allowed return_to", func(u *user, site string) {
		u.lands = landing.url + "/?after=logout"
		u.clickOn(site, linkReturnTo(u.lands))
	}, bySite{same: signsOut, cross: asks}, bySite{})...)
	// HOST is another site's. Kratos finds no host in the last three, and allows them. Browsers do (in http:HOST, on https).
	for _, to := range []string{"http://HOST/", `http:\\HOST`, `http:\/HOST`, "http:HOST"} {
		body := linkReturnTo(strings.Replace(to, "HOST", strings.TrimPrefix(crossSite, "http://"), 1))
		rows = append(rows, rowsBySite("link with return_to="+to, click(body), bySite{same: signsOut, cross: asks}, bySite{})...)
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

// preloadRows are of pages that have the browser fetch a URL before it is to be shown. What it gets then must not be what
// a click shows. These engines' prefetches of /logout would be refused without their header too, as their destination is
// "empty" or their site "none"; those of the home page would not.
func preloadRows(engine string) (rows []row) {
	click := func(name, head string) row {
		return row{name: "click after a " + name + " and then a sign-in", act: func(u *user) {
			u.setSession(sessionCookie + "=; Max-Age=0")
			u.openPage(u.url, head+link)
			u.waitForAnswer(http.StatusForbidden)
			u.setSession(u.session)
			u.clickLink()
		}, want: signsOut}
	}
	if engine != "webkit" { // which has no prefetch
		const name, prefetch = "prefetch by a link", `<link rel="prefetch" href="LOGOUT">`
		rows = append(rowsBySite(name, func(u *user, site string) { u.openPage(site, prefetch) },
			bySite{same: refused, cross: refused}, bySite{same: unseen, cross: harmless}), click(name, prefetch))
	}
	if engine != "chromium" { // which alone has speculation rules, and says why it does not follow them
		return rows
	}
	rules := func(name, address string) string {
		return fmt.Sprintf(`<script type="speculationrules">{%q: [{"source": "list", "urls": [%q]}]}</script>`, name, address)
	}
	for _, rule := range []struct{ name, whyUnsent string }{
		{"prefetch", string(preload.PrefetchStatusPrefetchNotEligibleUserHasCookies)},
		{"prerender", string(preload.PrerenderFinalStatusCrossSiteNavigationInInitialNavigation)},
	} {
		name := rule.name + " by speculation rules"
		rows = append(rows, rowsBySite(name, func(u *user, site string) {
			said := preloadSays(u, rule.whyUnsent)
			u.openPage(site, rules(rule.name, "LOGOUT"))
			if site == crossSite {
				retry(u.t, "Chromium to say "+rule.whyUnsent, said)
			}
		}, bySite{same: refused, cross: unsent}, bySite{same: unseen, cross: unsent})...)
		rows = append(rows, click(name, rules(rule.name, "LOGOUT")))
		rows = append(rows, row{name: "click after a " + name + " of where it leads", act: func(u *user) {
			u.openHome(landing)
			u.lands = u.url + "/?prefetchable" // Here, the app answers prefetches, as apps do that do not know of this.
			said := preloadSays(u, "Ready")
			u.openPage(u.url, rules(rule.name, u.lands)+linkReturnTo(u.lands))
			retry(u.t, "Chromium to be ready", said)
			u.clickLink()
		}, want: signsOut})
	}
	return append(rows, row{name: "click, and a prefetch of the home page before Ory ends the session", act: func(u *user) {
		begun, prefetched := make(chan struct{}), make(chan struct{})
		slow := *proxy // as if the browser reached Ory's logout URL late
		slow.ModifyResponse = func(resp *http.Response) error {
			if to := resp.Header.Get("Location"); to != "" {
				resp.Header.Set("Location", "/slow?to="+url.QueryEscape(to))
			}
			return nil
		}
		app := http.NewServeMux()
		app.Handle("/", &slow)
		app.HandleFunc("/begun", func(http.ResponseWriter, *http.Request) { <-begun })
		app.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
			close(begun)
			<-prefetched
			http.Redirect(w, r, r.FormValue("to"), http.StatusSeeOther)
		})
		u.openHome(newOrigin("http", app))
		said := preloadSays(u, "Ready", "Failure") // of which the app's 403 is the second
		u.clickOn(u.url, link+`<template>`+rules("prefetch", u.lands)+`</template><script>
			onclick = () => fetch("/begun").then(() => document.body.append(document.querySelector("template").content))</script>`)
		retry(u.t, "Chromium to end the prefetch", said)
		close(prefetched)
	}, want: signsOut})
}

// attackRows are of other sites' ways around the question, and of what else leads to it.
func attackRows() []row {
	// typed has the user type the URL of another site's page, which redirects to /logout once the user has seen it.
	typed := func(act func(u *user)) func(u *user) {
		return func(u *user) {
			u.openHome(newOrigin("https", proxy))
			var redirects atomic.Bool
			port := serve("https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/page" && redirects.Load() {
					http.Redirect(w, r, u.logoutURL, http.StatusFound)
					return
				}
				pageHandler(w, r)
			}))
			u.openPage(fmt.Sprintf("https://127.0.0.1:%d", port), `<a href="/second">Second page</a>
				<script>onpageshow = event => { if (event.persisted) location.reload() }</script>`) // Chromium may show a copy.
			redirects.Store(true)
			act(u)
		}
	}
	return []row{
		{name: "history.back() by another site to the question, on https, and a reload", act: func(u *user) {
			u.openHome(newOrigin("https", proxy))
			u.clickOn(crossSiteTLS, link)
			u.waitForQuestion()
			u.openPage(crossSiteTLS, "")
			u.lastStatus.Store(0)
			u.script(`history.back()`)
			u.waitForQuestion()
			u.lastStatus.Store(0)
			u.must(u.reload())
		}, want: asks},
		{name: "link on another site, behind a TLS proxy that drops Sec-Fetch-*", act: func(u *user) {
			u.openHome(newOrigin("https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Sec-Fetch-") })
				proxy.ServeHTTP(w, r)
			})))
			u.clickOn(crossSite, link)
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
		{name: "link on another site, with a planted token", act: func(u *user) { u.clickOn(crossSite, plantedLink) }, want: asks},
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

const plantedLink = `<a href="LOGOUT?logout_token=planted">Logout</a>`

// serviceWorker takes control of the app's pages at once.
type serviceWorker struct {
	name            string
	script          string  // with libraries, it does this
	activate, fetch string  // and this at these events
	query           string  // a link with this passes it by
	click           outcome // what a click on Logout comes to
}

const (
	passOn    = `e.respondWith(fetch(e.request))`
	preloaded = `e.respondWith((async () => await e.preloadResponse || fetch(e.request))())`
	enable    = `await registration.navigationPreload.enable(); `

	workbox = `importScripts("/node_modules/workbox-core/build/workbox-core.prod.js",
			"/node_modules/workbox-routing/build/workbox-routing.prod.js")
		const {registerRoute, NavigationRoute} = workbox.routing
		const showHome = options => registerRoute(new NavigationRoute(() => fetch("/"), options)); `
	angular = `importScripts("/node_modules/ngsw/ngsw-worker.js")` // which reads /ngsw.json
)

var (
	passesOn = serviceWorker{name: "passes requests on", fetch: passOn, click: asks}
	workers  = []serviceWorker{
		passesOn,
		{name: "rebuilds requests", fetch: `e.respondWith(fetch(new Request(e.request, {headers: {"X-App": "1"}})))`, click: asks},
		{name: "preloads", activate: enable, fetch: preloaded, click: asks},
		{name: "preloads with an empty header", activate: enable + `await registration.navigationPreload.setHeaderValue("")`,
			fetch: preloaded, click: asks},
		{name: "leaves /logout alone", fetch: `if (new URL(e.request.url).pathname.endsWith("/logout")) return; ` + passOn,
			click: signsOut},
		{name: "is Workbox's", script: workbox + `showHome({})`, click: stuck},
		{name: "is Workbox's, with a denylist", script: workbox + `showHome({denylist: [/^\/logout/]})`, click: signsOut},
		{name: "is Angular's", script: angular, click: stuck},
		{name: "is Angular's, with ngsw-bypass", script: angular, query: "ngsw-bypass", click: signsOut},
	}
)

func (w serviceWorker) behind() string { return ", behind a service worker that " + w.name }

// register has the app's pages controlled by a service worker.
func (u *user) register(w serviceWorker) {
	u.t.Helper()
	if w.script != "" {
		u.installLibraries()
	}
	script := w.script + `
		self.addEventListener("install", () => self.skipWaiting())
		self.addEventListener("activate", e => e.waitUntil((async () => { ` + w.activate + `; await clients.claim() })()))
		self.addEventListener("fetch", e => { ` + w.fetch + ` })`
	u.script(`navigator.serviceWorker.register("/worker.js?body=` + url.QueryEscape(script) + `")`)
	u.waitForTrue(`navigator.serviceWorker.controller != null`)
}

// workerRows are of an app with a service worker.
func workerRows() []row {
	rows := []row{
		{name: "click on both questions in a second tab after a logout" + passesOn.behind(), act: func(u *user) {
			u.register(passesOn)
			u.signOutInOtherTab(u.logoutURL, question)
			u.clickLink()
			u.waitForTrue(`location.search !== "" && document.readyState === "complete"`) // the next question
			u.clickLink()
		}, want: signsOut},
		{name: "click, and one on the question, while signed out" + passesOn.behind(), act: func(u *user) {
			u.register(passesOn)
			u.open(u.logoutURL)
			u.expect(asks)
			u.clickOn(u.url, link)
			u.waitForQuestion()
			u.clickLink()
			u.lands = u.url + "/"
		}, want: signsOut},
		{name: "click, and one on the question, without Kratos" + passesOn.behind(), act: func(u *user) {
			u.origin = newOrphan(u.t)
			u.open(u.url)
			u.register(passesOn)
			u.clickLink()
			u.waitForQuestion()
			u.clickLink()
		}, want: untold},
		{name: "frame on a page of the app's" + passesOn.behind(), act: func(u *user) {
			u.register(passesOn)
			u.openPage(u.url, `<iframe src="LOGOUT"></iframe>`)
		}, want: refused, sample: unseen},
	}
	for _, worker := range workers {
		typed, sample := asks, signsOut
		if worker.click == stuck {
			typed, sample = stuck, stuck
		}
		rows = append(rows,
			row{name: "click" + worker.behind(), act: func(u *user) {
				u.register(worker)
				u.eval(`document.querySelector("a").search = "` + worker.query + `"`)
				u.clickLink()
			}, want: worker.click, sample: sample},
			row{name: "typed URL" + worker.behind(), act: func(u *user) {
				u.register(worker)
				u.open(u.logoutURL + "?" + worker.query)
			}, want: typed})
		if worker.script == "" { // In WebKit, now and then, Angular's worker passes such a request on.
			rows = append(rows, row{name: "link on another site, with a planted token" + worker.behind(), act: func(u *user) {
				u.register(worker)
				u.clickOn(crossSite, plantedLink)
			}, want: asks, sample: signsOut})
		}
	}
	return rows
}

// installLibraries waits until the libraries are in .bin/node_modules.
func (u *user) installLibraries() {
	u.t.Helper()
	lookPath(u.t, "npm", "npm")
	u.must(npmInstall())
}

// npmInstall puts libraries that fetch what links lead to, or answer for it, into .bin/node_modules.
var npmInstall = sync.OnceValue(func() error {
	cmd := exec.CommandContext(interrupted, "npm", "install", "--silent", "--ignore-scripts", "--no-package-lock", "--prefer-offline",
		"--no-audit", "--no-fund", "--prefix", ".bin",
		"turbo@npm:@hotwired/turbo@8.0.23", "htmx1@npm:htmx.org@1.9.12", "htmx2@npm:htmx.org@2.0.11", "htmx4@npm:htmx.org@4.0.1",
		"workbox-routing@7.4.1", "ngsw@npm:@angular/service-worker@22.2.0", "--legacy-peer-deps") // without all of Angular
	cmd.Stderr = os.Stderr
	return cmd.Run()
})

// libraryRows are of an app with such a library.
func libraryRows() (rows []row) {
	const turbo, htmx = "turbo/dist/turbo.es2017-umd.js", "/dist/htmx.min.js"
	const hxGet, top = `<a href="LOGOUT" hx-get="LOGOUT">Logout</a>`, `target="_top"`
	open := func(u *user, file, body, attribute string) {
		u.t.Helper()
		u.installLibraries()
		u.openPage(u.url, `<script src="/node_modules/`+file+`"></script>`+strings.ReplaceAll(body, "<a", "<a "+attribute))
		u.waitForTrue(`document.readyState === "complete"`) // Before that, Turbo does not see the mouse.
		u.must(u.browser.mouse(0, 0, 0))                    // away from the link, or it may have come there before that
	}
	for _, library := range []struct {
		name, file, body string
		want, sample     outcome
	}{
		{name: "Turbo", file: turbo, body: link, want: asks, sample: signsOut},
		{name: "a frame of Turbo's", file: turbo, body: `<turbo-frame id="menu">` + link + `</turbo-frame>`, want: asks},
		{name: "htmx 1 and hx-boost", file: "htmx1" + htmx, body: `<p hx-boost="true">` + link, want: signsOut, sample: harmless},
		{name: "htmx 1 and hx-get", file: "htmx1" + htmx, body: hxGet, want: signsOut, sample: harmless},
		{name: "htmx 2 and hx-boost", file: "htmx2" + htmx, body: `<p hx-boost="true">` + link, want: signsOut, sample: harmless},
		{name: "htmx 2 and hx-get", file: "htmx2" + htmx, body: hxGet, want: signsOut, sample: harmless},
		{name: "htmx 4 and hx-boost", file: "htmx4" + htmx, body: `<p hx-boost:inherited=true>` + link, want: signsOut, sample: harmless},
		{name: "htmx 4 and hx-get", file: "htmx4" + htmx, body: hxGet, want: signsOut, sample: harmless},
	} {
		rows = append(rows,
			row{name: "click with " + library.name, act: func(u *user) {
				open(u, library.file, library.body, "")
				u.clickLink()
			}, want: library.want, sample: library.sample},
			row{name: "click with " + library.name + " and " + top, act: func(u *user) {
				open(u, library.file, library.body, top)
				u.clickLink()
			}, want: signsOut})
	}
	// Turbo begins a prefetch as soon as the mouse is there, or never, and sends it 0.1 seconds later.
	const sayPrefetch = `<script>addEventListener("turbo:before-prefetch", () => { document.title = "prefetching" })</script>`
	return append(rows,
		row{name: "click with Turbo after a hover", act: func(u *user) {
			open(u, turbo, link+sayPrefetch, "")
			u.mouse(firstLink, 0)
			u.waitForAnswer(http.StatusForbidden)
			u.waitForTrue(`document.title === "prefetching"`)
			u.clickLink()
		}, want: asks},
		row{name: "click with Turbo after a hover and " + top, act: func(u *user) {
			open(u, turbo, link+sayPrefetch, top)
			u.mouse(firstLink, 0)
			u.waitForTrue(`document.title === "Page" && document.querySelector("a").matches(":hover")`)
			u.clickLink()
		}, want: signsOut})
}

// In a frame, another site could have the user click Logout. The last page shows that the test sees what a frame shows.
func testFrames(t *testing.T, b browser) {
	for _, page := range []struct{ name, path, want string }{
		{"home page", "/", "false"},
		{"question", "/logout", "false"},
		{"page of the test", "/page?body=" + url.QueryEscape(link), "true"},
	} {
		t.Run(page.name, func(t *testing.T) {
			u := newUser(t, b, proxy)
			u.openPage(u.url, `<iframe src="`+page.path+`" onload="document.title = 'loaded'"></iframe>`)
			u.waitForTrue(`document.title === "loaded"`)
			if got := u.eval(`String(document.querySelector("iframe").contentDocument?.querySelector("a") != null)`); got != page.want {
				t.Errorf("a frame shows its link: got %s, want %s", got, page.want)
			}
		})
	}
}

// sampleHandler is the app with the logout route of Ory's sample, which does no more than this.
func sampleHandler(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/logout" {
		proxy.ServeHTTP(w, r)
		return
	}
	req, _ := http.NewRequest("GET", fmt.Sprintf("http://localhost:%d/self-service/logout/browser", shared.KratosPort), nil)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cookie", r.Header.Get("Cookie"))
	var flow struct {
		LogoutURL string `json:"logout_url"`
	}
	if resp, err := (&http.Client{Timeout: commandTimeout}).Do(req); err == nil {
		defer resp.Body.Close()
		json.NewDecoder(resp.Body).Decode(&flow)
	}
	http.Redirect(w, r, cmp.Or(flow.LogoutURL, "/"), http.StatusSeeOther)
}
