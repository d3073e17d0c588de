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

// measure returns, as JSON, how much too wide the page is, whether it is light or dark, the contrast of each text, and the
// height of each button.
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
		colors: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light",
		contrast: all("h1, p, label, input, a, button").map(e => ({of: e.outerHTML, is: contrast(e)})),
		height: all("a, button").map(e => ({of: e.outerHTML, is: e.getBoundingClientRect().height})),
	})
})()`

type measured struct {
	Overflow         int
	Colors           string
	Contrast, Height []struct {
		Of string
		Is float64
	}
}

// Every page is readable on a phone, light and dark; the screenshots in .bin/screenshots are to be looked at.
func testPages(t *testing.T, engine string, b browser, colors string) {
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
	u := &user{t: t, browser: b, origin: landing}
	for _, page := range []struct {
		name      string
		open      func()
		url, want string
	}{
		{name: "signed out", open: func() { u.open(u.url) }, url: u.url + "/", want: signedOut},
		{name: "sign in", open: u.clickLink, url: signInURL, want: "Password"},
		{name: "wrong password", open: func() { u.typePassword("wrong") }, url: signInURL, want: "The provided credentials are invalid"},
		{name: "signed in", open: func() { u.typePassword(demo.Password) }, url: u.url + "/", want: signedIn},
		{name: "unknown", open: func() { u.open(orphanURL) }, url: orphanURL + "/",
			want: "Ory could not tell. If you clicked Logout, you may still be signed in."},
		{name: "question", open: func() { u.clickOn(crossSite, link) }, url: u.logoutURL, want: "Logout"},
		{name: "signed out again", open: u.clickLink, url: u.url + "/", want: signedOut},
	} {
		func() {
			signingIn.Lock() // which some pages do
			defer signingIn.Unlock()
			page.open()
			u.waitFor(page.url, page.want)
		}()
		for _, width := range []int{320, 1280} {
			u.must(u.resize(width, 640))
			name := fmt.Sprintf("%s, %d, %s", page.name, width, colors)
			u.checkReadable(name, colors)
			u.waitForPaint()
			image, err := u.screenshot()
			u.must(err)
			u.must(os.WriteFile(filepath.Join(dir, name+".png"), image, 0o644))
		}
	}
}

func (u *user) waitForPaint() {
	u.t.Helper()
	u.script(`requestAnimationFrame(() => requestAnimationFrame(() => { window.painted = true }))`)
	u.waitForTrue(`window.painted`)
}

// typePassword fills in the sign-in page, and clicks its button.
func (u *user) typePassword(password string) {
	u.t.Helper()
	u.eval(`document.querySelector("[name=identifier]").value = ""`)
	u.mouse("[name=identifier]", 1)
	u.must(u.press(demo.Email))
	u.mouse("[name=password]", 1)
	u.must(u.press(password))
	u.mouse("button", 1)
}

func (u *user) checkReadable(name, colors string) {
	u.t.Helper()
	answer := u.eval(measure)
	var got measured
	u.must(json.Unmarshal([]byte(answer), &got))
	if got.Colors != colors {
		u.t.Errorf("%s: got %s colors, want %s ones", name, got.Colors, colors)
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
