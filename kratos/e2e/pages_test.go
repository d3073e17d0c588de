package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ory-logout/kratos/demo"
)

// findUnreadable is a script that returns what is hard to read on the page, a line each.
const findUnreadable = `(() => {
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
	const height = e => e.getBoundingClientRect().height
	const found = []
	const check = (selector, what, measure, min) => document.querySelectorAll(selector).forEach(e => {
		if (!(measure(e) >= min)) found.push("got " + what + " " + measure(e) + ", want at least " + min + ", of " + e.outerHTML)
	})
	check("html", "width", () => innerWidth, document.documentElement.scrollWidth)
	check("h1, p, label, input, a, button", "contrast", contrast, 4.5)
	check("a, button", "height", height, 44)
	if (!matchMedia("(prefers-color-scheme: COLORS)").matches) found.push("its colors are not COLORS")
	return found.join("\n")
})()`

// Every page is readable on a phone, light and dark; the screenshots in .bin/screenshots are to be looked at.
func testPages(t *testing.T, engine string, b browser, colors string) {
	orphan := newOrphan(t)
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
		{name: "unknown", open: func() { u.open(orphan.url) }, url: orphan.url + "/",
			want: "Ory could not tell. If you clicked Logout, you may still be signed in."},
		{name: "question", open: func() { u.clickOn(crossSite, link) }, url: u.logoutURL, want: question},
	} {
		func() {
			signingIn.Lock() // which some pages do
			defer signingIn.Unlock()
			page.open()
			u.waitFor(page.url, page.want)
		}()
		for _, width := range []int{320, 1280} { // WebKit's window is no narrower than 334.
			u.must(u.resize(width, 640))
			name := fmt.Sprintf("%s, %d, %s", page.name, width, colors)
			if got := u.eval(strings.ReplaceAll(findUnreadable, "COLORS", colors)); got != "" {
				t.Errorf("%s: %s", name, got)
			}
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
