package main

import "testing"

func testPages(t *testing.T, engine string, b browser) {
	if engine == "chromium" {
		u := newUser(t, engine, b)
		u.clickLink()
		u.checkSignedOut(appURL + "/")
		return
	}
}
