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
	click(x, y int) error
	press(keys string) error // \t and \r are Tab and Enter
	back() error
	reload() error
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

func (perform webDriverInput) click(x, y int) error {
	return perform([]any{mouse(params{"type": "pointerMove", "x": x, "y": y},
		params{"type": "pointerDown", "button": 0}, params{"type": "pointerUp", "button": 0})})
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
			t.Run("frames", func(t *testing.T) { testFrames(t, b) })
			t.Run("app", func(t *testing.T) { testRows(t, engine.name, b, proxy) })
			if engine.name == "chromium" { // One engine is enough to see what the app is for.
				t.Run("Ory's sample", func(t *testing.T) { testRows(t, engine.name, b, http.HandlerFunc(sampleHandler)) })
			}
		})
	}
}

// user is a user with a tab of a browser, on an app of the user's own.
type user struct {
	t *testing.T
	browser
	*app
	route   http.Handler // of /logout
	session string       // Kratos's session cookie, as a Cookie header has it
	lands   string       // where a logout leads
}

// newUser signs a user in without the browser, and gives the browser the cookie. It shows the home page.
func newUser(t *testing.T, b browser, route http.Handler) *user {
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
	u := &user{t, b, nil, route, newSession(t, shared, demo.Email).session(), appURL + "/"}
	u.openApp("http")
	return u
}

// signingIn is for one user at a time: Kratos fails some sign-ins that write to SQLite at once.
var signingIn sync.Mutex

// openApp opens an app on a new origin, where a browser knows no service worker.
func (u *user) openApp(scheme string) {
	u.t.Helper()
	u.app = newApp(scheme, u.route)
	// All ports of localhost share their cookies, and a user before may have left a secret.
	u.open(u.url + "/page?redirect=/&cookie=" + url.QueryEscape(u.session+"; Path=/; HttpOnly; SameSite=Lax") +
		"&cookie=" + url.QueryEscape("logout_confirm=; Path=/; Max-Age=0"))
	u.waitFor(u.url+"/", signedIn)
}

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

// openPage opens a page on a site, with LOGOUT in body being the app's logout URL.
func (u *user) openPage(site, body string) {
	u.t.Helper()
	body = "<!doctype html><title>Page</title><body>" + strings.ReplaceAll(body, "LOGOUT", u.logout)
	u.open(site + "/page?body=" + url.QueryEscape(body))
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

func (u *user) click(selector string) {
	u.t.Helper()
	u.check(u.browser.click(u.find(selector)))
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
	retry(u.t, "another tab", func() (err error) {
		other.browser, err = u.other()
		return err
	})
	return &other
}

// waitFor waits until the page at url, or at url with any query, shows text.
func (u *user) waitFor(url, text string) {
	u.t.Helper()
	retry(u.t, fmt.Sprintf("%s to say %q", url, text), func() error {
		got, err := u.browser.eval(`document.readyState + " " + location.href + "\n" + document.body.innerText`)
		after, ok := strings.CutPrefix(got, "complete "+url)
		if err == nil && !(ok && strings.ContainsAny(after[:1], "?\n") && strings.Contains(after, text)) {
			err = fmt.Errorf("got %s", got)
		}
		return err
	})
}

// waitForTrue waits until js, an expression, is true.
func (u *user) waitForTrue(js string) {
	u.t.Helper()
	retry(u.t, js, func() error {
		if got := u.eval("String(" + js + ")"); got != "true" {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
}

// waitForAnswer waits until the last answer to a request for /logout has status.
func (u *user) waitForAnswer(status int64) {
	u.t.Helper()
	retry(u.t, "an answer of "+u.logout, func() error {
		if got := u.status.Load(); got != status {
			return fmt.Errorf("got status %d, want %d", got, status)
		}
		return nil
	})
}

// waitForQuestion waits until the app asks the user.
func (u *user) waitForQuestion() {
	u.t.Helper()
	u.waitForAnswer(http.StatusForbidden)
	u.waitFor(u.logout, "Do you want to sign out?")
}

// checkSignedOut checks that a logout has done all it should.
func (u *user) checkSignedOut() {
	u.t.Helper()
	u.waitFor(u.lands, signedOut)
	checkWhoami(u.t, shared, u.session, http.StatusUnauthorized)
	const cookie = `(() => {
		const request = new XMLHttpRequest()
		request.open("GET", "/cookie", false)
		request.send()
		return request.responseText
	})()`
	if got := u.eval(cookie); got != "" {
		u.t.Errorf("got session cookie %q, want none", got)
	}
}

// checkSignedIn opens the home page, and checks that nothing has signed the user out.
func (u *user) checkSignedIn() {
	u.t.Helper()
	u.open(u.url)
	u.waitFor(u.url+"/", signedIn)
}
