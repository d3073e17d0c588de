package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// row is one way to sign out. In the end the user must be signed out.
type row struct {
	name string
	act  func(u *user, logout string)
	want string // where the browser lands
}

func link(href, attributes string) string {
	return fmt.Sprintf(`<a href="%s" %s>Logout</a>`, href, attributes)
}

func returnTo(to string) string { return "&return_to=" + url.QueryEscape(to) }

func testRows(t *testing.T, engine string, b browser) {
	allowed, refused := returnTo(appURL+"/?after=logout"), returnTo("https://evil.example/")
	rows := []row{
		{"click on the home page", func(u *user, _ string) { u.clickLink() }, "/"},
		{"Tab and Enter on the home page", func(u *user, _ string) { u.check(u.press("\t\r")) }, "/"},
		{"typed URL", func(u *user, logout string) { u.open(logout) }, "/"},
		{"link with an allowed return_to", func(u *user, logout string) {
			u.openHTML(sameSite, link(logout+allowed, ""))
			u.clickLink()
		}, "/?after=logout"},
		{"link with a refused return_to", func(u *user, logout string) {
			u.openHTML(sameSite, link(logout+refused, ""))
			u.clickLink()
		}, "/"},
		{"script without a gesture", func(u *user, _ string) { u.script(`location = "/logout"`) }, "/"},
		{"link on a same-site page", func(u *user, logout string) {
			u.openHTML(sameSite, link(logout, ""))
			u.clickLink()
		}, "/"},
		{"link to a new tab", func(u *user, logout string) {
			u.openHTML(sameSite, link(logout, `target="_blank"`))
			u.clickLink()
			u.browser = u.otherTab().browser
			if engine == "webkit" { // which says that another site's link led here
				u.clickRefused(logout)
			}
		}, "/"},
		{"link on another site", func(u *user, logout string) {
			u.openHTML(crossSite, link(logout, ""))
			u.clickLink()
			u.clickRefused(logout)
		}, "/"},
		{"link on another site, with an allowed return_to", func(u *user, logout string) {
			u.openHTML(crossSite, link(logout+allowed, ""))
			u.clickLink()
			u.clickRefused(logout + allowed)
		}, "/?after=logout"},
		{"link that another site redirects", func(u *user, logout string) {
			u.openHTML(sameSite, link(crossSite+"/?redirect="+url.QueryEscape(logout), ""))
			u.clickLink()
			u.clickRefused(logout)
		}, "/"},
		{"a second tab that still shows Logout", func(u *user, _ string) {
			u.openHTML(sameSite, link(appURL+"/", `target="_blank"`))
			u.clickLink()
			second := u.otherTab()
			second.waitFor(appURL+"/", signedIn)
			u.open(appURL)
			u.waitFor(appURL+"/", signedIn)
			u.clickLink()
			u.checkSignedOut(appURL + "/")
			second.clickLink()
			second.checkSignedOut(appURL + "/")
		}, "/"},
		{"the Back button after a logout", func(u *user, _ string) {
			u.open(appURL + "/?before=logout")
			u.waitFor(appURL+"/?before=logout", signedIn)
			u.clickLink()
			u.checkSignedOut(appURL + "/")
			u.check(u.back())
		}, "/?before=logout"},
		{"no-referrer: click", func(u *user, _ string) {
			u.openApp(noReferrer, nil)
			u.clickLink()
		}, "/"},
		{"no-referrer: link on another site", func(u *user, _ string) {
			logout := u.openApp(noReferrer, nil)
			u.openHTML(crossSite, link(logout, ""))
			u.clickLink()
			u.clickRefused(logout)
		}, "/"},
	}
	if engine == "chromium" {
		rows = append(rows, chromiumRows...)
	}
	if engine != "webkit" { // which does not prefetch
		rows = append(rows, row{"navigation after a refused link rel=prefetch", func(u *user, logout string) {
			u.openHTML(sameSite, `<link rel="prefetch" href="`+logout+`">`)
			waitForVisit(u.t, logout, http.StatusForbidden)
			u.script(`location = "` + logout + `"`)
		}, "/"})
	}
	rows = append(rows, workerRows("service worker", passOnWorker, "empty", engine != "chromium")...)
	rows = append(rows, workerRows("service worker with preload", preloadWorker, "document", engine == "firefox")...)
	rows = append(rows, row{"service worker that rebuilds requests: click", func(u *user, _ string) {
		logout := u.openWorkerApp(rebuildWorker, nil)
		u.eval(`document.querySelector("a").href = "` + logout + `"`)
		u.clickLink()
		u.clickRefused(logout)
	}, "/"})
	for _, library := range []library{turbo, htmx} {
		rows = append(rows, library.rows()...)
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := newUser(t, b)
			logout, _ := uniqueLogout(appURL)
			row.act(u, logout)
			u.checkSignedOut(appURL + row.want)
		})
	}
}

const (
	prefetchRules  = `<script type="speculationrules">{"prefetch":[{"source":"list","urls":["LOGOUT"]}]}</script>`
	prerenderRules = `<script type="speculationrules">{"prerender":[{"source":"list","urls":["LOGOUT"]}]}</script>`
)

// chromiumRows are of speculation rules, which no other engine has.
var chromiumRows = []row{
	{"click after a refused prefetch by speculation rules", func(u *user, logout string) {
		u.openHTML(sameSite, link(logout, "")+strings.ReplaceAll(prefetchRules, "LOGOUT", logout))
		waitForVisit(u.t, logout, http.StatusForbidden)
		u.clickLink()
	}, "/"},
	{"click after a refused prefetch by speculation rules of the same origin", func(u *user, logout string) {
		u.eval(`document.querySelector("a").href = "` + logout + `"`)
		u.script("document.body.append(document.createRange().createContextualFragment(`" + strings.ReplaceAll(prefetchRules, "LOGOUT", logout) + "`))")
		waitForVisit(u.t, logout, http.StatusForbidden)
		u.clickLink()
	}, "/"},
}

var noReferrer = map[string]string{"Referrer-Policy": "no-referrer"}

// openApp opens the app on an origin of its own, with header and pages of the row's. It returns a logout URL there,
// the LOGOUT of the pages.
func (u *user) openApp(header, pages map[string]string) (logout string) {
	u.t.Helper()
	port := freePort()
	site := fmt.Sprintf("http://localhost:%d", port)
	logout, _ = uniqueLogout(site)
	for path, page := range pages {
		pages[path] = strings.ReplaceAll(page, "LOGOUT", logout)
	}
	u.check(serveApp(port, header, pages, u.logout))
	u.open(site)
	u.waitFor(site+"/", signedIn)
	return logout
}

// Service workers as many apps have them. The last one builds requests anew.
const (
	passOnWorker = `
		self.addEventListener("install", () => self.skipWaiting())
		self.addEventListener("activate", e => e.waitUntil(clients.claim()))
		self.addEventListener("fetch", e => e.respondWith(fetch(e.request)))`
	preloadWorker = `
		self.addEventListener("install", () => self.skipWaiting())
		self.addEventListener("activate", e => e.waitUntil(Promise.all([clients.claim(), registration.navigationPreload.enable()])))
		self.addEventListener("fetch", e => e.respondWith((async () => await e.preloadResponse || fetch(e.request))()))`
	rebuildWorker = `
		self.addEventListener("install", () => self.skipWaiting())
		self.addEventListener("activate", e => e.waitUntil(clients.claim()))
		self.addEventListener("fetch", e => e.respondWith(fetch(new Request(e.request, {headers: {"X-App": "1"}}))))`
)

// openWorkerApp opens the app with a service worker that is in control.
func (u *user) openWorkerApp(worker string, header map[string]string) (logout string) {
	u.t.Helper()
	logout = u.openApp(header, map[string]string{"/worker.js": worker})
	u.script(`navigator.serviceWorker.register("/worker.js")`)
	waitFor(u.t, "the service worker", func() bool { return u.eval(`String(navigator.serviceWorker.controller != null)`) == "true" })
	return logout
}

// workerRows are of an app with a service worker, through which a click has Sec-Fetch-Dest dest, and a typed URL
// may be refused.
func workerRows(name, worker, dest string, refusesTyped bool) []row {
	click := func(u *user, logout string) {
		u.t.Helper()
		u.eval(`document.querySelector("a").href = "` + logout + `"`)
		u.clickLink()
		waitFor(u.t, "a visit to "+logout, func() bool { return visits.last(logout).status != 0 })
		if got := visits.last(logout).header.Get("Sec-Fetch-Dest"); got != dest {
			u.t.Errorf("got Sec-Fetch-Dest %q, want %q", got, dest)
		}
	}
	clickOnAnotherSite := func(u *user, head, logout string) {
		u.t.Helper()
		u.openHTML(crossSite, head+link(logout, ""))
		u.clickLink()
		u.clickRefused(logout)
	}
	return []row{
		{name + ": click", func(u *user, _ string) {
			click(u, u.openWorkerApp(worker, nil))
		}, "/"},
		{name + ": typed URL", func(u *user, _ string) {
			logout := u.openWorkerApp(worker, nil)
			u.open(logout)
			if refusesTyped {
				u.clickRefused(logout)
			}
		}, "/"},
		{name + ": link on another site", func(u *user, _ string) {
			clickOnAnotherSite(u, "", u.openWorkerApp(worker, nil))
		}, "/"},
		{name + ": link on another site, which sends no Referer", func(u *user, _ string) {
			clickOnAnotherSite(u, `<meta name="referrer" content="no-referrer">`, u.openWorkerApp(worker, nil))
		}, "/"},
		{name + ", no-referrer: click", func(u *user, _ string) {
			logout := u.openWorkerApp(worker, noReferrer)
			click(u, logout)
			u.clickOnceMore(logout)
		}, "/"},
		{name + ", no-referrer: link on another site", func(u *user, _ string) {
			clickOnAnotherSite(u, "", u.openWorkerApp(worker, noReferrer))
		}, "/"},
	}
}

// library takes over clicks on links, and fetches what they lead to.
type library struct {
	name       string
	script     func() (string, error)
	body       string // attributes
	prefetches bool   // on hover
}

var (
	turbo = library{"Turbo", npmFile("@hotwired/turbo@8", "dist/turbo.es2017-umd.js"), "", true}
	htmx  = library{"htmx", npmFile("htmx.org@4", "dist/htmx.min.js"), `hx-boost:inherited="true"`, false}
)

// open opens a page of the app's with the library and a link to Logout.
func (l library) open(u *user, attributes string) (logout string) {
	u.t.Helper()
	lookPath(u.t, "npm", "npm")
	script, err := l.script()
	u.check(err)
	logout = u.openApp(nil, map[string]string{
		"/library.js": script,
		"/library": `<!doctype html><title>Library</title><head><script src="/library.js"></script></head><body ` + l.body + `>` +
			link("LOGOUT", attributes),
	})
	page, _, _ := strings.Cut(logout, "/logout")
	u.open(page + "/library")
	return logout
}

func (l library) rows() []row {
	return []row{
		{l.name + ": click", func(u *user, _ string) {
			logout := l.open(u, "")
			u.clickLink()
			u.clickRefused(logout)
		}, "/"},
		{l.name + `: click on a link with target="_top"`, func(u *user, _ string) {
			l.open(u, `target="_top"`)
			u.clickLink()
		}, "/"},
		{l.name + ": hover and click", func(u *user, _ string) {
			logout := l.open(u, "")
			u.hover("a")
			if l.prefetches {
				waitForVisit(u.t, logout, http.StatusForbidden)
			}
			u.clickLink()
			u.clickRefused(logout)
		}, "/"},
		{l.name + `: hover and click on a link with target="_top"`, func(u *user, _ string) {
			l.open(u, `target="_top"`)
			u.hover("a")
			u.clickLink()
		}, "/"},
	}
}
