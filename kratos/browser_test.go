package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser is a browser that a test drives. Only one goroutine may use it.
type browser interface {
	newTab() (tab, error) // with cookies of its own
	close()
}

// tab is a tab of a browser. Its input comes from the browser and not from a script: pages trust it.
type tab interface {
	open(url string) error          // as if it were typed
	eval(js string) (string, error) // js is an expression that gives a string
	point(x, y int) error           // with the mouse
	click(x, y int, ctrl bool) error
	press(keys string) error // \t and \r are Tab and Enter
	back() error
	resize(width, height int) error
	screenshot() (png []byte, err error)
	other() (tab, error) // another tab that this one has opened
	close()              // this one and those that it has opened
}

var engines = []struct {
	name, packages string // Debian's
	start          func(ctx context.Context, dark bool) (browser, error)
}{
	{"chromium", "chromium", startChromium},
	{"firefox", "firefox-esr", startFirefox},
	{"webkit", "webkit2gtk-driver xvfb", startWebKit},
}

const commandTimeout = time.Minute // Firefox may take as long to start on a busy machine

var errNoTab = errors.New("there is no other tab")

// lookPath returns the path of the first of names that is a program.
func lookPath(names ...string) (path string, err error) {
	err = exec.ErrNotFound
	for _, name := range names {
		if path, err = exec.LookPath(name); err == nil {
			break
		}
	}
	return path, err
}

// WebDriver's actions are the same as WebDriver BiDi's: https://w3c.github.io/webdriver/#actions

type action map[string]any

func mouse(actions ...any) any {
	return action{"type": "pointer", "id": "mouse", "parameters": action{"pointerType": "mouse"}, "actions": actions}
}

func keyboard(actions ...any) any {
	return action{"type": "key", "id": "keyboard", "actions": actions}
}

func pointActions(x, y int) []any {
	return []any{mouse(action{"type": "pointerMove", "x": x, "y": y})}
}

func clickActions(x, y int, ctrl bool) []any {
	click := []any{mouse(action{"type": "pointerMove", "x": x, "y": y}, action{"type": "pointerDown", "button": 0}, action{"type": "pointerUp", "button": 0})}
	if ctrl {
		const control = "\uE009"
		pause := action{"type": "pause"}
		click = append(click, keyboard(action{"type": "keyDown", "value": control}, pause, pause, action{"type": "keyUp", "value": control}))
	}
	return click
}

func keyActions(keys string) []any {
	var actions []any
	for _, key := range strings.NewReplacer("\t", "\uE004", "\r", "\uE007").Replace(keys) {
		actions = append(actions, action{"type": "keyDown", "value": string(key)}, action{"type": "keyUp", "value": string(key)})
	}
	return []any{keyboard(actions...)}
}

func TestBrowser(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			b := startBrowser(t, engine.name, false)
			for _, test := range []struct {
				name string
				test func(*testing.T, string, browser)
			}{
				{"pages", testPages},
				{"signs out", testRows},
				{"does not sign out", testAttacks},
				{"frames", testFrames},
				{"control", testAttacksOnSample},
			} {
				t.Run(test.name, func(t *testing.T) { test.test(t, engine.name, b) })
			}
		})
	}
}

// startBrowser starts a browser. It skips the test where there is none, but fails it in CI.
func startBrowser(t *testing.T, engine string, dark bool) browser {
	t.Helper()
	for _, e := range engines {
		if e.name != engine {
			continue
		}
		b, err := e.start(interrupted, dark)
		if errors.Is(err, exec.ErrNotFound) {
			missing := fmt.Sprintf("no %s to test with: Debian has it (apt install %s)", e.name, e.packages)
			if os.Getenv("CI") == "true" {
				t.Fatal(missing)
			}
			t.Skip(missing)
		}
		if err != nil {
			t.Fatal(err)
		}
		stop := sync.OnceFunc(b.close)
		browserStops.Store(b, stop)
		t.Cleanup(stop)
		return b
	}
	t.Fatalf("no engine %q", engine)
	return nil
}

var browserStops sync.Map // by browser

// stopBrowsers ends all browsers that were started, and returns when they have ended.
func stopBrowsers() {
	browserStops.Range(func(_, stop any) bool {
		stop.(func())()
		return true
	})
}

// user is a user who is signed in, with a tab of a browser.
type user struct {
	t *testing.T
	tab
	engine  string
	session string // Kratos's session cookie, as a Cookie header has it
}

// newUser signs a user in without the browser, and gives the browser the cookie.
func newUser(t *testing.T, engine string, b browser) *user {
	t.Helper()
	tab, err := b.newTab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tab.close)
	u := &user{t: t, tab: tab, engine: engine}
	u.signIn()
	return u
}

// signingIn is for one user at a time: Kratos fails some sign-ins that write to SQLite at once.
var signingIn sync.Mutex

func (u *user) signIn() {
	u.t.Helper()
	signingIn.Lock()
	waitFor(u.t, "a session", func() bool {
		c := newClient(shared)
		_, err := c.signIn(demoPassword)
		u.session = c.session()
		return err == nil && u.session != ""
	})
	signingIn.Unlock()
	_, value, _ := strings.Cut(u.session, "=")
	u.open(sameSite + "/?session=" + url.QueryEscape(value) + "&redirect=" + url.QueryEscape(appURL))
	u.waitFor(appURL+"/", signedIn)
}

func (u *user) check(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) open(url string) {
	u.t.Helper()
	u.check(u.tab.open(url))
}

// openHTML opens a page with body on a site, sameSite or crossSite.
func (u *user) openHTML(site, body string) {
	u.t.Helper()
	u.open(site + "/?body=" + url.QueryEscape(body))
}

func (u *user) eval(js string) string {
	u.t.Helper()
	value, err := u.tab.eval(js)
	u.check(err)
	return value
}

// script runs a script, without a gesture of the user.
func (u *user) script(js string) {
	u.t.Helper()
	u.eval(`(() => { setTimeout(() => {` + js + `}); return "" })()`)
}

// find returns where the first element is that selector selects.
func (u *user) find(selector string) (x, y int) {
	u.t.Helper()
	const middle = `(() => {
		const box = document.querySelector(%q).getBoundingClientRect()
		return JSON.stringify([Math.floor(box.x + box.width / 2), Math.floor(box.y + box.height / 2)])
	})()`
	u.check(json.Unmarshal([]byte(u.eval(fmt.Sprintf(middle, selector))), &[]any{&x, &y}))
	return x, y
}

func (u *user) hover(selector string) {
	u.t.Helper()
	x, y := u.find(selector)
	u.check(u.point(x, y))
}

func (u *user) click(selector string) {
	u.t.Helper()
	x, y := u.find(selector)
	u.check(u.tab.click(x, y, false))
}

// clickLogout clicks the first link or button.
func (u *user) clickLink() {
	u.t.Helper()
	u.click("a, button")
}

// otherTab waits for the tab that the user's has opened.
func (u *user) otherTab() *user {
	u.t.Helper()
	other := *u
	waitFor(u.t, "another tab", func() bool {
		tab, err := u.other()
		other.tab = tab
		return err == nil
	})
	return &other
}

// waitFor waits until the page at url shows text.
func (u *user) waitFor(url, text string) {
	u.t.Helper()
	var got string
	if err := poll(func() (err error) {
		got, err = u.tab.eval(`document.readyState + " " + location.href.replace(/flow=.*/, "flow") + "\n" + document.body.innerText`)
		if err == nil && !(strings.HasPrefix(got, "complete "+url+"\n") && strings.Contains(got, text)) {
			err = errors.New("another page")
		}
		return err
	}); err != nil {
		u.t.Fatalf("waited in vain for %s to say %q: %v:\n%s", url, text, err, got)
	}
}

// cookie returns the browser's session cookie, as a Cookie header has it, or "" if there is none. The page must be the app's.
func (u *user) cookie() string {
	u.t.Helper()
	return u.eval(`(() => {
		const request = new XMLHttpRequest()
		request.open("GET", "/test/cookie", false)
		request.send()
		return request.responseText
	})()`)
}

// checkSignedOut checks that a logout has done all it should, and that the browser lands on url.
func (u *user) checkSignedOut(url string) {
	u.t.Helper()
	u.waitFor(url, signedOut)
	checkWhoami(u.t, shared, u.session, http.StatusUnauthorized)
	if got := u.cookie(); got != "" {
		u.t.Errorf("got session cookie %q, want none", got)
	}
}

// checkSignedIn checks that nothing has signed the user out. The page must be the app's.
func (u *user) checkSignedIn() {
	u.t.Helper()
	checkWhoami(u.t, shared, u.session, http.StatusOK)
	if got, want := u.cookie(), u.session; got != want {
		u.t.Errorf("got session cookie %q, want %q", got, want)
	}
}

// clickRefused waits for the page that refuses logout, and clicks its link. Until then the user is signed in.
func (u *user) clickRefused(logout string) {
	u.t.Helper()
	waitForVisit(u.t, logout, http.StatusForbidden)
	u.waitFor(logout, "Logout")
	u.checkSignedIn()
	u.clickLink()
}

// clickOnceMore waits for the answer to logout, and if that is the page that refuses it, clicks its link.
func (u *user) clickOnceMore(logout string) {
	u.t.Helper()
	waitFor(u.t, "a visit to "+logout, func() bool { return visits.last(logout).status != 0 })
	if visits.last(logout).status == http.StatusForbidden {
		u.clickRefused(logout)
	}
}

// waitForVisit waits until there was a visit to url that was answered with status.
func waitForVisit(t *testing.T, url string, status int) {
	t.Helper()
	if poll(func() error {
		if visits.last(url).status != status {
			return errors.New("another answer")
		}
		return nil
	}) != nil {
		t.Fatalf("waited in vain for a visit to %s that is answered %d; the last: %v", url, status, visits.last(url))
	}
}
