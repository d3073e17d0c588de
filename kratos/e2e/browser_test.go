package e2e

import (
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

	"ory-logout/kratos/demo"
)

// browser is a tab of a browser. Its input comes from the browser and not from a script: pages trust it. Only one
// goroutine may use the tabs of a browser.
type browser interface {
	open(url string) error          // as if it were typed
	eval(js string) (string, error) // js is an expression that gives a string
	point(x, y int) error           // with the mouse
	click(x, y int, ctrl bool) error
	press(keys string) error // \t and \r are Tab and Enter
	back() error
	resize(width, height int) error
	screenshot() (png []byte, err error)
	other() (browser, error) // another tab, if there is one
	closeTab() error
}

// engines start browsers, which end with the test. They skip the test where they lack a program, but fail it in CI.
var engines = []struct {
	name  string
	start func(t *testing.T, dark bool) browser
}{
	{"chromium", startChromium},
	{"firefox", startFirefox},
	{"webkit", startWebKit},
}

const commandTimeout = time.Minute // of a browser

var errNoTab = errors.New("there is no other tab")

// lookPath returns the path of the first of names that is a program.
func lookPath(t *testing.T, packages string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing := "not installed: Debian has it (apt install " + packages + ")"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

// startProgram starts a program that ends with the test.
func startProgram(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	p, err := demo.StartProgram(interrupted, nil, env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
}

type params map[string]any // of a command

// webDriverInput performs actions, which are the same in WebDriver and WebDriver BiDi:
// https://w3c.github.io/webdriver/#actions
type webDriverInput func(actions []any) error

func (perform webDriverInput) point(x, y int) error {
	return perform([]any{mouse(params{"type": "pointerMove", "x": x, "y": y})})
}

func (perform webDriverInput) click(x, y int, ctrl bool) error {
	pause := params{"type": "pause"}
	click := []any{mouse(pause, params{"type": "pointerMove", "x": x, "y": y},
		params{"type": "pointerDown", "button": 0}, params{"type": "pointerUp", "button": 0})}
	if ctrl {
		const control = "\uE009"
		click = append(click, keyboard(params{"type": "keyDown", "value": control}, pause, pause, pause, params{"type": "keyUp", "value": control}))
	}
	return perform(click)
}

func (perform webDriverInput) press(keys string) error {
	var actions []any
	for _, key := range strings.NewReplacer("\t", "\uE004", "\r", "\uE007").Replace(keys) {
		actions = append(actions, params{"type": "keyDown", "value": string(key)}, params{"type": "keyUp", "value": string(key)})
	}
	return perform([]any{keyboard(actions...)})
}

func mouse(actions ...any) any {
	return params{"type": "pointer", "id": "mouse", "parameters": params{"pointerType": "mouse"}, "actions": actions}
}

func keyboard(actions ...any) any {
	return params{"type": "key", "id": "keyboard", "actions": actions}
}

func TestBrowser(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			b := engine.start(t, false)
			t.Run("pages", func(t *testing.T) { testPages(t, engine.name, b, false) })
			t.Run("dark pages", func(t *testing.T) { testPages(t, engine.name, engine.start(t, true), true) })
			t.Run("signs out", func(t *testing.T) { testRows(t, engine.name, b) })
			t.Run("does not sign out", func(t *testing.T) { testAttacks(t, engine.name, b) })
			t.Run("frames", func(t *testing.T) { testFrames(t, b) })
			if engine.name == "chromium" { // one engine is enough
				t.Run("control", func(t *testing.T) { testSample(t, b) })
			}
		})
	}
}

// user is a user with a browser.
type user struct {
	t *testing.T
	browser
	session string           // Kratos's session cookie, as a Cookie header has it
	logout  http.HandlerFunc // of the apps that openApp opens, if not their own
}

// newUser signs a user in without the browser, and gives the browser the cookie.
func newUser(t *testing.T, b browser) *user {
	t.Helper()
	if interrupted.Err() != nil {
		t.Fatal("interrupted")
	}
	t.Cleanup(func() {
		for other, err := b.other(); err == nil; other, err = b.other() {
			if other.closeTab() != nil {
				break
			}
		}
	})
	u := &user{t: t, browser: b}
	waitFor(t, "a session", func() bool {
		signingIn.Lock()
		defer signingIn.Unlock()
		c := newClient(shared)
		_, err := c.signIn(demo.Password)
		u.session = c.session()
		return err == nil && u.session != ""
	})
	_, value, _ := strings.Cut(u.session, "=")
	u.open(sameSite + "/?session=" + url.QueryEscape(value) + "&redirect=" + url.QueryEscape(appURL))
	u.waitFor(appURL+"/", signedIn)
	return u
}

// signingIn is for one user at a time: Kratos fails some sign-ins that write to SQLite at once.
var signingIn sync.Mutex

func (u *user) check(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) open(url string) {
	u.t.Helper()
	u.check(u.browser.open(url))
}

// openHTML opens a page with body on a site, sameSite or crossSite.
func (u *user) openHTML(site, body string) {
	u.t.Helper()
	u.open(site + "/?body=" + url.QueryEscape(body))
}

func (u *user) eval(js string) string {
	u.t.Helper()
	value, err := u.browser.eval(js)
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
	u.check(u.browser.click(x, y, false))
}

// clickLink clicks the first link or button.
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
		other.browser = tab
		return err == nil
	})
	return &other
}

// waitFor waits until the page at url shows text.
func (u *user) waitFor(url, text string) {
	u.t.Helper()
	retry(u.t, fmt.Sprintf("%s to say %q", url, text), func() error {
		got, err := u.browser.eval(`document.readyState + " " + location.href.replace(/flow=.*/, "flow") + "\n" + document.body.innerText`)
		if err == nil && !(strings.HasPrefix(got, "complete "+url+"\n") && strings.Contains(got, text)) {
			err = fmt.Errorf("got %s", got)
		}
		return err
	})
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

// checkStillSignedIn opens the home page, and checks that nothing has signed the user out.
func (u *user) checkStillSignedIn() {
	u.t.Helper()
	u.open(appURL)
	u.waitFor(appURL+"/", signedIn)
	u.checkSignedIn()
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
	retry(t, "a visit to "+url, func() error {
		if got := visits.last(url); got.status != status {
			return fmt.Errorf("got %v, want an answer %d", got, status)
		}
		return nil
	})
}
