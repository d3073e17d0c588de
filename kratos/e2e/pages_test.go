package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ory-logout/kratos/demo"
)

// measure returns, as JSON, how much too wide the page is, whether it is dark, and of each text its contrast and of each
// button its height.
const measure = `(() => {
	const numbers = color => color.match(/[\d.]+/g).map(Number)
	const luminance = color => {
		const [r, g, b] = numbers(color).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		return .2126 * r + .7152 * g + .0722 * b
	}
	const background = e => {
		const color = getComputedStyle(e).backgroundColor
		return numbers(color)[3] === 0 ? background(e.parentElement) : color
	}
	document.documentElement.style.background = "Canvas" // which it is, but no script can see that
	const contrast = e => {
		const [dark, light] = [getComputedStyle(e).color, background(e)].map(luminance).sort((a, b) => a - b)
		return (light + .05) / (dark + .05)
	}
	const all = selector => [...document.querySelectorAll(selector)]
	return JSON.stringify({
		overflow: document.documentElement.scrollWidth - innerWidth,
		dark: matchMedia("(prefers-color-scheme: dark)").matches,
		contrast: all("h1, p, label, input, a, button").map(e => ({of: e.outerHTML, is: contrast(e)})),
		height: all("a, button").map(e => ({of: e.outerHTML, is: e.getBoundingClientRect().height})),
	})
})()`

type measured struct {
	Overflow         int
	Dark             bool
	Contrast, Height []struct {
		Of string
		Is float64
	}
}

// Every page is readable on a phone, light and dark; the screenshots in .bin/screenshots are to be looked at.
func testPages(t *testing.T, engine string, b browser, dark bool) {
	orphan := &demo.Stack{AppPort: freePort(), KratosPort: freePort()} // without its Kratos
	t.Cleanup(orphan.Stop)
	if err := orphan.StartApp(interrupted, orphan.AppPort); err != nil {
		t.Fatal(err)
	}
	orphanURL := fmt.Sprintf("http://localhost:%d", orphan.AppPort)
	dir := filepath.Join(".bin", "screenshots", engine)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	signInURL := fmt.Sprintf("http://localhost:%d/", shared.SignInPort)
	u := &user{t: t, browser: b, app: &app{}}
	for _, page := range []struct {
		name string
		open func()
		url  string
		want string
	}{
		{"signed out", func() { u.open(appURL) }, appURL + "/", signedOut},
		{"sign in", u.clickLink, signInURL, "Password"},
		{"wrong password", func() { u.typePassword("wrong") }, signInURL, "The provided credentials are invalid"},
		{"signed in", func() { u.typePassword(demo.Password) }, appURL + "/", signedIn},
		{"unknown", func() { u.open(orphanURL) }, orphanURL + "/", fmt.Sprintf("Ory at http://localhost:%d could not tell", orphan.KratosPort)},
		{"refused", func() {
			u.clickOn(crossSite, `<a href="`+appURL+`/logout">Logout</a>`)
		}, appURL + "/logout", "Logout"},
		{"signed out again", u.clickLink, appURL + "/", signedOut},
	} {
		func() {
			signingIn.Lock() // which some pages do
			defer signingIn.Unlock()
			page.open()
			u.waitFor(page.url, page.want)
		}()
		for _, width := range []int{320, 1280} {
			u.check(u.resize(width, 640))
			name := fmt.Sprintf("%s, %d, %s", page.name, width, map[bool]string{false: "light", true: "dark"}[dark])
			u.checkReadable(name, dark)
			u.script(`requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = true }))`)
			u.waitForTrue(`window.painted`)
			image, err := u.screenshot()
			u.check(err)
			u.check(os.WriteFile(filepath.Join(dir, name+".png"), image, 0o644))
		}
	}
}

// typePassword fills in the sign-in page, and clicks its button.
func (u *user) typePassword(password string) {
	u.t.Helper()
	u.eval(`document.querySelector("[name=identifier]").value = ""`)
	u.click("[name=identifier]")
	u.check(u.press(demo.Email))
	u.click("[name=password]")
	u.check(u.press(password))
	u.click("button")
}

func (u *user) checkReadable(name string, dark bool) {
	u.t.Helper()
	var got measured
	u.check(json.Unmarshal([]byte(u.eval(measure)), &got))
	if got.Dark != dark {
		u.t.Errorf("%s: got dark %t, want %t", name, got.Dark, dark)
	}
	if got.Overflow > 0 {
		u.t.Errorf("%s: got a page %d pixels wider than the screen", name, got.Overflow)
	}
	for _, contrast := range got.Contrast {
		if want := 4.5; !(contrast.Is >= want) {
			u.t.Errorf("%s: got contrast %.1f, want %.1f, of %s", name, contrast.Is, want, strings.TrimSpace(contrast.Of))
		}
	}
	for _, height := range got.Height {
		if want := 44.0; height.Is < want {
			u.t.Errorf("%s: got a height of %.1f, want %.1f, of %s", name, height.Is, want, strings.TrimSpace(height.Of))
		}
	}
}
