package e2e

import (
	"net/url"
	"strings"
	"testing"

	"ory-logout/kratos/demo"
)

// What Ory promises of a logout: https://www.ory.com/docs/kratos/self-service/flows/user-logout
func TestLogout(t *testing.T) {
	for _, tt := range []struct{ name, returnTo, want string }{
		{"no return_to", "", "/"},
		{"allowed return_to", appURL + "/?after=logout", "/?after=logout"},
		{"refused return_to", "https://evil.example/", "/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(shared)
			page, err := c.signIn(demo.Password)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(page, signedIn) {
				t.Fatalf("got a page without %q:\n%s", signedIn, page)
			}
			session := c.session()
			checkWhoami(t, shared, session, 200)

			logout := appURL + linkPattern.FindStringSubmatch(page)[1]
			if tt.returnTo != "" {
				logout += "?return_to=" + url.QueryEscape(tt.returnTo)
			}
			page, landed, err := c.get(logout)
			if err != nil {
				t.Fatal(err)
			}
			checkWhoami(t, shared, session, 401)
			if got := c.session(); got != "" {
				t.Errorf("got session cookie %q, want none", got)
			}
			if got, want := landed, appURL+tt.want; got != want {
				t.Errorf("landed on %s, want %s", got, want)
			}
			if !strings.Contains(page, signedOut) {
				t.Errorf("got a page without %q:\n%s", signedOut, page)
			}
		})
	}
}

func TestLogoutSignedOut(t *testing.T) {
	page, landed, err := newClient(shared).get(appURL + "/logout")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := landed, appURL+"/"; got != want {
		t.Errorf("landed on %s, want %s", got, want)
	}
	if !strings.Contains(page, signedOut) {
		t.Errorf("got a page without %q:\n%s", signedOut, page)
	}
}

func TestWrongPassword(t *testing.T) {
	c := newClient(shared)
	page, err := c.signIn("wrong")
	if err != nil {
		t.Fatal(err)
	}
	if want := "The provided credentials are invalid"; !strings.Contains(page, want) || c.session() != "" {
		t.Errorf("got session %q and a page without %q:\n%s", c.session(), want, page)
	}
}
