package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/preload"
)

// outcome is what comes of a request for /logout.
type outcome string

const (
	atOnce   outcome = "signs out"
	asked    outcome = "signs out one click later"     // on the page that asks
	refused  outcome = "is refused"                    // where nobody sees the page that asks
	unsent   outcome = "is not sent"                   // by the browser
	unseen   outcome = "signs out unseen"              // by Ory's sample: the user looks at another page
	harmless outcome = "is answered, and does nothing" // by Ory's sample
)

// row is what a user does, or what a page does to a user, who is signed in and on the app's home page.
type row struct {
	name   string
	act    func(u *user)
	app    outcome
	sample outcome // in an app with the logout route of Ory's sample, in Chromium; "" if it was not tried
}

func testRows(t *testing.T, engine string, b browser, route http.Handler) {
	unvouched := atOnce     // a typed URL and a link to a new tab
	if engine == "webkit" { // It does not say that the user began these.
		unvouched = asked
	}
	for _, rows := range [][]row{ownRows(unvouched), siteRows(engine, unvouched), attackRows(engine), workerRows(unvouched), libraryRows()} {
		for _, row := range rows {
			want := row.app
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
	case atOnce:
		u.checkSignedOut()
	case asked:
		u.waitForQuestion()
		checkWhoami(u.t, shared, u.session, http.StatusOK)
		u.clickLink()
		u.checkSignedOut()
	case refused:
		u.waitForAnswer(http.StatusForbidden)
		u.checkSignedIn()
	case unsent:
		u.checkSignedIn()
		if got := u.status.Load(); got != 0 {
			u.t.Errorf("got an answer %d of %s, want none", got, u.logout)
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

// clickOn opens a page with body on a site, and clicks its first link or button.
func (u *user) clickOn(site, body string) {
	u.t.Helper()
	u.openPage(site, body)
	u.clickLink()
}

// ownRows are of what users do in the app itself.
func ownRows(unvouched outcome) []row {
	return []row{
		{"click on the home page", func(u *user) { u.clickLink() }, atOnce, atOnce},
		{"click on the home page, on https", func(u *user) {
			u.openApp("https")
			u.clickLink()
		}, atOnce, ""},
		{"Tab and Enter on the home page", func(u *user) { u.check(u.press("\t\r")) }, atOnce, ""},
		{"typed URL", func(u *user) { u.open(u.logout) }, unvouched, atOnce},
		{"link with an allowed return_to", func(u *user) {
			u.lands = appURL + "/?after=logout"
			u.clickOn(u.url, `<a href="LOGOUT?return_to=`+url.QueryEscape(u.lands)+`">Logout</a>`)
		}, atOnce, ""},
		{"link with a refused return_to", func(u *user) {
			u.clickOn(u.url, `<a href="LOGOUT?return_to=https://evil.example/">Logout</a>`)
		}, atOnce, ""},
		{"click in a second tab after a logout", func(u *user) {
			u.clickOn(u.url, `<a href="/" target="_blank">Home</a>`)
			second := u.otherTab()
			second.waitFor(u.url+"/", signedIn)
			u.open(u.url)
			u.clickLink()
			u.checkSignedOut()
			u.browser, u.lands = second.browser, u.url+"/"
			u.clickLink()
		}, atOnce, ""},
		{"Back button after a logout", func(u *user) {
			u.open(appURL + "/?before=logout")
			u.waitFor(appURL+"/?before=logout", signedIn)
			u.clickLink()
			u.checkSignedOut()
			u.lands = appURL + "/?before=logout"
			u.check(u.back())
		}, atOnce, ""},
	}
}

// siteRows are of pages on another port of the app's host, which is the same site, and of pages on another site. With
// another site's images and the like, the session cookie does not come.
func siteRows(engine string, unvouched outcome) (rows []row) {
	type kind struct {
		name                                 string
		act                                  func(u *user, site string)
		same, cross, sampleSame, sampleCross outcome
	}
	click := func(body string) func(*user, string) { return func(u *user, site string) { u.clickOn(site, body) } }
	look := func(body string) func(*user, string) { return func(u *user, site string) { u.openPage(site, body) } }
	newTab := func(body string) func(*user, string) {
		return func(u *user, site string) {
			u.clickOn(site, body)
			u.browser = u.otherTab().browser
		}
	}
	kinds := []kind{
		{"link", click(link), atOnce, asked, atOnce, atOnce},
		{"link to a new tab", newTab(`<a href="LOGOUT" target="_blank">Logout</a>`), unvouched, asked, atOnce, atOnce},
		{"window without opener", newTab(`<button onclick="open('LOGOUT', '', 'noopener')">Logout</button>`),
			unvouched, asked, atOnce, atOnce},
		{"link that another site redirects", func(u *user, site string) {
			u.clickOn(site, `<a href="`+crossSite+`/page?redirect=LOGOUT">Logout</a>`)
		}, asked, asked, atOnce, atOnce},
		{"form", click(`<form action="LOGOUT"><button>Logout</button></form>`), atOnce, asked, atOnce, atOnce},
		{"script that sets location", look(`<script>location = "LOGOUT"</script>`), atOnce, asked, atOnce, atOnce},
		{"meta refresh", look(`<meta http-equiv="refresh" content="0; url=LOGOUT">`), atOnce, asked, atOnce, atOnce},
		{"image", look(`<img src="LOGOUT">`), refused, refused, unseen, harmless},
		{"style sheet", look(`<link rel="stylesheet" href="LOGOUT">`), refused, refused, unseen, harmless},
		{"frame", look(`<iframe src="LOGOUT"></iframe>`), refused, refused, unseen, harmless},
		{"fetch", look(`<script>fetch("LOGOUT", {mode: "no-cors", credentials: "include"})</script>`),
			refused, refused, unseen, harmless},
	}
	// The browser must not use what it has got then. In these engines question 2 or 3 refuses each prefetch, if 1 does not.
	clickAfter := func(name, prefetch string) row {
		return row{"click after a " + name, func(u *user) {
			u.openPage(u.url, prefetch+link)
			u.waitForAnswer(http.StatusForbidden)
			u.clickLink()
		}, atOnce, ""}
	}
	if engine != "webkit" { // which has no prefetch
		const name, prefetch = "prefetch by a link", `<link rel="prefetch" href="LOGOUT">`
		kinds = append(kinds, kind{name, look(prefetch), refused, refused, unseen, harmless})
		rows = append(rows, clickAfter(name, prefetch))
	}
	if engine == "chromium" { // which alone has these rules, and says why it does not follow them
		for _, rule := range []struct{ name, unsent string }{
			{"prefetch", string(preload.PrefetchStatusPrefetchNotEligibleUserHasCookies)},
			{"prerender", string(preload.PrerenderFinalStatusCrossSiteNavigationInInitialNavigation)},
		} {
			name := rule.name + " by speculation rules"
			body := fmt.Sprintf(`<script type="speculationrules">{%q: [{"source": "list", "urls": ["LOGOUT"]}]}</script>`, rule.name)
			kinds = append(kinds, kind{name, func(u *user, site string) {
				said := preloadSays(u, rule.unsent)
				u.openPage(site, body)
				if site == crossSite {
					retry(u.t, rule.unsent, said)
				}
			}, refused, unsent, unseen, unsent})
			rows = append(rows, clickAfter(name, body))
		}
	}
	for _, kind := range kinds {
		rows = append(rows,
			row{kind.name + " on the same site", func(u *user) { kind.act(u, sameSite) }, kind.same, kind.sampleSame},
			row{kind.name + " on another site", func(u *user) { kind.act(u, crossSite) }, kind.cross, kind.sampleCross})
	}
	return rows
}

// attackRows are of other sites' ways around the question, and of what else leads to it.
func attackRows(engine string) []row {
	back := func(head string) func(u *user) {
		return func(u *user) {
			u.openApp("https")
			u.clickOn(crossSiteTLS, head+link)
			u.waitForQuestion()
			u.openPage(crossSiteTLS, head)
			u.status.Store(0)
			u.script(`history.back()`)
			u.waitForAnswer(http.StatusForbidden)
		}
	}
	plant := func(u *user) { u.open(sameSite + "/page?cookie=logout_confirm=planted") }
	rows := []row{
		{"history.back() by another site to the question, on https", back(""), asked, ""},
		{"history.back() by another site to the question, on https, without a Referer",
			back(`<meta name="referrer" content="no-referrer">`), asked, ""},
		{"reload of the question", func(u *user) {
			u.clickOn(crossSite, link)
			u.waitForQuestion()
			u.status.Store(0)
			u.check(u.reload())
			u.waitForAnswer(http.StatusForbidden)
		}, asked, ""},
		{"link on another site, with an allowed return_to", func(u *user) {
			u.lands = appURL + "/?after=logout"
			u.clickOn(crossSite, `<a href="LOGOUT?return_to=`+url.QueryEscape(u.lands)+`">Logout</a>`)
		}, asked, ""},
		{"link on another site, with a planted secret", func(u *user) {
			plant(u)
			u.clickOn(crossSite, `<a href="LOGOUT?logout_confirm=planted">Logout</a>`)
		}, asked, ""},
		{"image on the same site, with a planted secret", func(u *user) {
			plant(u)
			u.openPage(sameSite, `<img src="LOGOUT?logout_confirm=planted">`)
		}, refused, ""},
	}
	if engine == "chromium" { // Behind a service worker, the others do not say that another site began it.
		rows = append(rows, row{"link on another site, with a planted secret, behind a service worker", func(u *user) {
			u.openWorker(passOn)
			plant(u)
			u.clickOn(crossSite, `<a href="LOGOUT?logout_confirm=planted">Logout</a>`)
		}, asked, ""})
	}
	return rows
}

// worker returns a service worker that takes control at once.
func worker(activate, fetch string) string {
	return `
		self.addEventListener("install", () => self.skipWaiting())
		self.addEventListener("activate", e => e.waitUntil((async () => { ` + activate + `; await clients.claim() })()))
		self.addEventListener("fetch", e => { ` + fetch + ` })`
}

var (
	passOn  = worker("", `e.respondWith(fetch(e.request))`)
	rebuild = worker("", `e.respondWith(fetch(new Request(e.request, {headers: {"X-App": "1"}})))`)
)

// openWorker has the app's pages controlled by a service worker.
func (u *user) openWorker(worker string) {
	u.t.Helper()
	u.script(`navigator.serviceWorker.register("/worker.js?body=` + url.QueryEscape(worker) + `")`)
	u.waitForTrue(`navigator.serviceWorker.controller != null`)
}

// workerRows are of an app with a service worker.
func workerRows(unvouched outcome) []row {
	const (
		preload      = `await registration.navigationPreload.enable()`
		emptyPreload = preload + `; await registration.navigationPreload.setHeaderValue("")`
		preloaded    = `e.respondWith((async () => await e.preloadResponse || fetch(e.request))())`
	)
	rows := []row{
		{"two tabs that ask, behind a service worker", func(u *user) {
			u.openWorker(rebuild)
			u.clickOn(u.url, `<a href="LOGOUT" target="_blank">Logout</a>`)
			second := u.otherTab()
			second.waitForQuestion()
			u.open(u.url)
			u.clickLink()
			u.waitForQuestion()
			u.browser = second.browser
		}, asked, ""},
		{"frame on a page of the app's, behind a service worker", func(u *user) {
			u.openWorker(passOn)
			u.openPage(u.url, `<iframe src="LOGOUT"></iframe>`)
		}, refused, unseen},
	}
	for _, worker := range []struct {
		name, script string
		click, typed outcome
	}{
		{"passes requests on", passOn, asked, asked},
		{"rebuilds requests", rebuild, asked, asked},
		{"rebuilds requests and sends them twice", worker("", `e.respondWith((async () => {
			const send = () => fetch(new Request(e.request, {headers: {"X-App": "1"}}))
			const first = await send()
			await send()
			return first
		})())`), asked, asked},
		{"preloads", worker(preload, preloaded), asked, asked},
		{"preloads with an empty header", worker(emptyPreload, preloaded), asked, asked},
		{"leaves /logout alone", worker("", `
			if (new URL(e.request.url).pathname.endsWith("/logout")) return
			e.respondWith(fetch(e.request))`), atOnce, unvouched},
	} {
		behind := ", behind a service worker that " + worker.name
		rows = append(rows,
			row{"click" + behind, func(u *user) {
				u.openWorker(worker.script)
				u.clickLink()
			}, worker.click, atOnce},
			row{"typed URL" + behind, func(u *user) {
				u.openWorker(worker.script)
				u.open(u.logout)
			}, worker.typed, ""},
			row{"link on another site" + behind, func(u *user) {
				u.openWorker(worker.script)
				u.clickOn(crossSite, link)
			}, asked, atOnce})
	}
	return rows
}

// npmInstall puts libraries that fetch what links lead to into .bin/node_modules.
var npmInstall = sync.OnceValue(func() error {
	cmd := exec.CommandContext(interrupted, "npm", "install", "--silent", "--ignore-scripts", "--no-package-lock", "--prefer-offline",
		"--no-audit", "--no-fund", "--prefix", ".bin",
		"turbo@npm:@hotwired/turbo@8.0.23", "htmx1@npm:htmx.org@1.9.12", "htmx2@npm:htmx.org@2.0.11", "htmx4@npm:htmx.org@4.0.1")
	cmd.Stderr = os.Stderr
	return cmd.Run()
})

// libraryRows are of an app with such a library.
func libraryRows() (rows []row) {
	const turbo, htmx = "turbo/dist/turbo.es2017-umd.js", "/dist/htmx.min.js"
	open := func(u *user, file, body, attribute string) {
		u.t.Helper()
		lookPath(u.t, "npm", "npm")
		u.check(npmInstall())
		u.openPage(u.url, `<script src="/node_modules/`+file+`"></script>`+strings.ReplaceAll(body, "<a", "<a "+attribute))
	}
	for _, l := range []struct {
		name, file, body string
		click, sample    outcome
	}{
		{"Turbo", turbo, link, asked, atOnce},
		{"a frame of Turbo's", turbo, `<turbo-frame id="menu">` + link + `</turbo-frame>`, asked, ""},
		{"htmx 1 and hx-boost", "htmx1" + htmx, `<p hx-boost="true">` + link, atOnce, harmless},
		{"htmx 1 and hx-get", "htmx1" + htmx, `<a href="LOGOUT" hx-get="LOGOUT">Logout</a>`, atOnce, harmless},
		{"htmx 2 and hx-boost", "htmx2" + htmx, `<p hx-boost="true">` + link, atOnce, harmless},
		{"htmx 2 and hx-get", "htmx2" + htmx, `<a href="LOGOUT" hx-get="LOGOUT">Logout</a>`, atOnce, harmless},
		{"htmx 4 and hx-boost", "htmx4" + htmx, `<p hx-boost:inherited="true">` + link, atOnce, harmless},
		{"htmx 4 and hx-get", "htmx4" + htmx, `<a href="LOGOUT" hx-get="LOGOUT">Logout</a>`, atOnce, harmless},
	} {
		rows = append(rows,
			row{"click with " + l.name, func(u *user) {
				open(u, l.file, l.body, "")
				u.clickLink()
			}, l.click, l.sample},
			row{"click with " + l.name + ` and target="_top"`, func(u *user) {
				open(u, l.file, l.body, `target="_top"`)
				u.clickLink()
			}, atOnce, ""})
	}
	return append(rows, row{"click with Turbo after its prefetch", func(u *user) {
		open(u, turbo, link, "")
		u.check(u.point(u.find("a")))
		u.waitForAnswer(http.StatusForbidden)
		u.clickLink()
	}, asked, ""})
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
