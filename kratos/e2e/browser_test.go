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
	mouse(x, y, clicks int) error   // moves it there, and clicks that many times
	press(keys string) error        // \t and \r are Tab and Enter
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
	start func(t *testing.T, colors string) browser // light or dark
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

func (perform webDriverInput) mouse(x, y, clicks int) error {
	actions := []any{params{"type": "pointerMove", "x": x, "y": y}}
	for range clicks {
		actions = append(actions, params{"type": "pointerDown", "button": 0}, params{"type": "pointerUp", "button": 0})
	}
	return perform([]any{params{"type": "pointer", "id": "mouse", "parameters": params{"pointerType": "mouse"}, "actions": actions}})
}

func (perform webDriverInput) press(keys string) error {
	var actions []any
	for _, key := range strings.NewReplacer("\t", "\uE004", "\r", "\uE007").Replace(keys) {
		actions = append(actions, params{"type": "keyDown", "value": string(key)}, params{"type": "keyUp", "value": string(key)})
	}
	return perform([]any{params{"type": "key", "id": "keyboard", "actions": actions}})
}

func TestBrowser(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			b := engine.start(t, "light")
			t.Run("pages", func(t *testing.T) { testPages(t, engine.name, b, "light") })
			t.Run("dark pages", func(t *testing.T) { testPages(t, engine.name, engine.start(t, "dark"), "dark") })
			t.Run("frames", func(t *testing.T) { testFrames(t, b) })
			t.Run("app", func(t *testing.T) { testRows(t, engine.name, b, proxy) })
			if engine.name == "chromium" { // One engine is enough to see what the app is for.
				t.Run("Ory's sample", func(t *testing.T) { testRows(t, engine.name, b, http.HandlerFunc(sampleHandler)) })
			}
		})
	}
}

// user is a user with a tab of a browser, and the origin where the app is used.
type user struct {
	t *testing.T
	browser
	*origin
	session string // Kratos's session cookie, as a Cookie header has it
	lands   string // where a logout leads
}

// newUser signs a user in without the browser, and gives the browser the cookie. It shows the home page.
func newUser(t *testing.T, b browser, route http.Handler) *user {
	t.Helper()
	if interrupted.Err() != nil {
		t.Fatal("interrupted")
	}
	t.Cleanup(func() {
		for {
			other, err := b.other()
			if err != nil || other.closeTab() != nil {
				return
			}
		}
	})
	session := newSession(t, shared, demo.Email).session()
	u := &user{t: t, browser: b, session: session, lands: landing.url + "/"}
	u.openHome(newOrigin("http", route))
	return u
}

// signingIn is for one user at a time: Kratos fails some sign-ins that write to SQLite at once.
var signingIn sync.Mutex

// openHome has the user use the app at o, and opens its home page. Of a new origin, no browser knows a service worker.
func (u *user) openHome(o *origin) {
	u.t.Helper()
	u.origin = o
	u.open(u.url + "/page?redirect=/&cookie=" + url.QueryEscape(u.session+"; Path=/; HttpOnly; SameSite=Lax"))
	u.waitFor(u.url+"/", signedIn)
}

// must ends the test if there is an error.
func (u *user) must(err error) {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) open(url string) {
	u.t.Helper()
	u.must(u.browser.open(url))
}

// openPage opens a page on a site, with LOGOUT in body being the app's logout URL.
func (u *user) openPage(site, body string) {
	u.t.Helper()
	body = "<!doctype html><title>Page</title><body>" + strings.ReplaceAll(body, "LOGOUT", u.logoutURL)
	u.open(site + "/page?body=" + url.QueryEscape(body))
}

func (u *user) eval(js string) string {
	u.t.Helper()
	value, err := u.browser.eval(js)
	u.must(err)
	return value
}

// script runs a script, without a gesture of the user.
func (u *user) script(js string) {
	u.t.Helper()
	u.eval(`(() => { setTimeout(() => {` + js + `}); return "" })()`)
}

// mouse moves the mouse to the first element that selector selects, and clicks that many times.
func (u *user) mouse(selector string, clicks int) {
	u.t.Helper()
	const js = `(() => {
		const box = document.querySelector(%q).getBoundingClientRect()
		return JSON.stringify({x: Math.floor(box.x + box.width / 2), y: Math.floor(box.y + box.height / 2)})
	})()`
	answer := u.eval(fmt.Sprintf(js, selector))
	var middle struct{ X, Y int }
	u.must(json.Unmarshal([]byte(answer), &middle))
	u.must(u.browser.mouse(middle.X, middle.Y, clicks))
}

const firstLink = "a, button" // as a selector

func (u *user) clickLink() {
	u.t.Helper()
	u.mouse(firstLink, 1)
}

// otherTab returns the user with the tab that the user's own tab has opened.
func (u *user) otherTab() *user {
	u.t.Helper()
	other := *u
	retry(u.t, "another tab", func() (err error) {
		other.browser, err = u.other()
		return err
	})
	return &other
}

// get returns the answer to a request for path by a script of the page's.
func (u *user) get(path string) string {
	u.t.Helper()
	const js = `(request => { request.open("GET", %q, false); request.send(); return request.responseText })(new XMLHttpRequest())`
	return u.eval(fmt.Sprintf(js, path))
}

// setSession sets the browser's session cookie, as if another tab had done that.
func (u *user) setSession(cookie string) {
	u.t.Helper()
	u.get("/page?cookie=" + url.QueryEscape(cookie+"; Path=/; HttpOnly; SameSite=Lax"))
}

// waitFor waits until the page at address, or at address with a query, shows text.
func (u *user) waitFor(address, text string) {
	u.t.Helper()
	retry(u.t, fmt.Sprintf("%s to say %q", address, text), func() error {
		got, err := u.browser.eval(`document.readyState + " " + location.href + "\n" + document.body.innerText`)
		if err != nil {
			return err
		}
		loaded := strings.HasPrefix(got, "complete "+address+"\n") || strings.HasPrefix(got, "complete "+address+"?")
		if !loaded || !strings.Contains(got, text) {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
}

// waitForTrue waits until js, an expression, is true.
func (u *user) waitForTrue(js string) {
	u.t.Helper()
	retry(u.t, js, func() error {
		got, err := u.browser.eval("String(" + js + ")") // fails while a page makes way for another
		if err != nil {
			return err
		}
		if got != "true" {
			return fmt.Errorf("got %s", got)
		}
		return nil
	})
}

// waitForAnswer waits until the last answer to a request for /logout has status.
func (u *user) waitForAnswer(status int64) {
	u.t.Helper()
	retry(u.t, "an answer of "+u.logoutURL, func() error {
		if got := u.lastStatus.Load(); got != status {
			return fmt.Errorf("got status %d, want %d", got, status)
		}
		return nil
	})
}

// waitForQuestion waits until the app asks the user.
func (u *user) waitForQuestion() {
	u.t.Helper()
	u.waitForAnswer(http.StatusForbidden)
	u.waitFor(u.logoutURL, question)
}

// checkSignedOut checks that a logout has done all it should.
func (u *user) checkSignedOut() {
	u.t.Helper()
	u.waitFor(u.lands, signedOut)
	if got := u.eval("location.href"); got != u.lands { // With an id in the query, it is the page of an error of Kratos's.
		u.t.Errorf("landed on %s, want %s", got, u.lands)
	}
	checkWhoami(u.t, shared, u.session, http.StatusUnauthorized)
	if got := u.get("/cookies"); strings.Contains(got, sessionCookie) {
		u.t.Errorf("got cookies %q, want no session", got)
	}
}

// checkSignedIn opens the home page, and checks that nothing has signed the user out.
func (u *user) checkSignedIn() {
	u.t.Helper()
	u.open(u.url)
	u.waitFor(u.url+"/", signedIn)
}
