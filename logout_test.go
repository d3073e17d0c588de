package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	ory "github.com/ory/client-go"
)

// What a user's browser sends, and what Ory answers. No log line may hold any of it.
const (
	sessionCookie = "ory_session=SECRET-COOKIE"
	flowToken     = "SECRET-TOKEN"
	flowURL       = "https://ory.example/self-service/logout?token=SECRET-TOKEN&return_to=/%2e%2e/%c3%bc"
)

// A return_to that Ory refuses, as a query, and what is logged of it.
const (
	refused = "return_to=https%3A%2F%2Fuser%3ASECRET-PASSWORD%40evil.example%2F%3Ftoken%3DSECRET-RETURN"
	leftOut = `level=WARN msg="return_to left out" return_to=https://evil.example err="status 400: self_service_flow_return_to_forbidden"` + "\n"
)

var user = http.Header{"Cookie": {sessionCookie}} // on plain http, where no browser says more

// logoutTest is a request for /logout, and what comes of it.
type logoutTest struct {
	name         string
	query        string
	header       http.Header      // user, if nil
	ory          http.HandlerFunc // fakeKratos, if nil
	oryAgain     http.HandlerFunc // for the second question; fakeKratos, if nil
	wantAsked    []string         // the query of each question to Ory; nil stands for one question without a query
	wantLocation string           // or, if empty, the page that asks
	wantToken    string           // of that page's link
	wantLog      string
	wantTook     time.Duration
}

// run runs the test in a bubble of testing/synctest, so that the time it takes is exact.
func (tt logoutTest) run(t *testing.T) {
	if tt.header == nil {
		tt.header = user
	}
	if tt.ory == nil {
		tt.ory = fakeKratos
	}
	if tt.oryAgain == nil {
		tt.oryAgain = fakeKratos
	}
	if tt.wantAsked == nil {
		tt.wantAsked = []string{""}
	}
	bubble(t, tt.name, func(t *testing.T) {
		log := captureLog(t)
		var asked []string
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			got := fmt.Sprintf("%s %s, Accept: %s, Cookie: %q", r.Method, r.URL.Path, r.Header.Get("Accept"), r.Header["Cookie"])
			want := fmt.Sprintf("GET /self-service/logout/browser, Accept: application/json, Cookie: [%q]", strings.Join(tt.header["Cookie"], "; "))
			check(t, "question to Ory", got, want)
			asked = append(asked, r.URL.RawQuery)
			if len(asked) == 1 {
				tt.ory(w, r)
			} else {
				tt.oryAgain(w, r)
			}
		})
		start := time.Now()
		resp := get(t, app, "/logout?"+tt.query, tt.header)
		check(t, "duration", time.Since(start), tt.wantTook)
		if tt.wantLocation != "" {
			checkRedirect(t, resp, tt.wantLocation)
		} else {
			checkPage(t, resp, tt.query, tt.wantToken)
		}
		synctest.Wait() // until Ory knows of the last question, even if it was given up
		check(t, "queries to Ory", fmt.Sprintf("%q", asked), fmt.Sprintf("%q", tt.wantAsked))
		checkLog(t, log, tt.wantLog)
	})
}

// What a click on Logout leads to, and what Ory is asked for it.
func TestLogout(t *testing.T) {
	const (
		allowed = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
		tooLate = `level=ERROR msg="logout failed" err="context deadline exceeded"`
	)
	longHost := "return_to=https%3A%2F%2F" + strings.Repeat("h", 60000)
	warnOf := func(origin string) string { return strings.Replace(leftOut, "https://evil.example", origin, 1) }
	stranger := http.Header{"Cookie": {"theme=dark"}}
	hangs := oryAnswer{hangs: true}.ServeHTTP
	tests := []logoutTest{
		{name: "session", wantLocation: flowURL},
		{name: "split Cookie header", header: http.Header{"Cookie": {"theme=dark", sessionCookie}}, wantLocation: flowURL},
		{name: "no session", header: stranger, wantLocation: "/"},
		{name: "no Cookie header", header: http.Header{}, wantAsked: []string{}, wantLocation: "/"},
		{name: "empty Cookie header", header: http.Header{"Cookie": {""}}, wantAsked: []string{}, wantLocation: "/"},
		{name: "flow without a token", ory: reply(200, tokenless), wantLocation: "http://ory.example"},
		{name: "logout URL that is not ASCII", ory: reply(200, flowJSON("http://ory.example/é")), wantLocation: "http://ory.example/%c3%a9"},
		{name: "allowed return_to", query: allowed, wantAsked: []string{allowed}, wantLocation: flowURL},
		{name: "empty return_to", query: "return_to=", wantLocation: flowURL},
		{name: "refused return_to", query: refused, wantAsked: []string{refused, ""}, wantLocation: flowURL, wantLog: leftOut},
		{name: "return_to that is no URL", query: "return_to=%25", wantAsked: []string{"return_to=%25", ""}, wantLocation: flowURL, wantLog: warnOf(`""`)},
		{name: "return_to without a host", query: "return_to=javascript%3ASECRET", wantAsked: []string{"return_to=javascript%3ASECRET", ""}, wantLocation: flowURL, wantLog: warnOf("javascript:")},
		{name: "return_to on a long host", query: longHost, wantAsked: []string{longHost, ""}, wantLocation: flowURL, wantLog: warnOf("https://" + strings.Repeat("h", 200-len("https://")))},
		{name: "return_to, nobody signed in", query: refused, header: stranger, wantAsked: []string{refused}, wantLocation: "/"},
		{name: "return_to, Ory hangs", query: refused, ory: hangs, wantAsked: []string{refused}, wantLocation: "/", wantLog: tooLate, wantTook: 3 * time.Second},
		{name: "refused return_to, then an error", query: refused, oryAgain: reply(500, ""), wantAsked: []string{refused, ""}, wantLocation: "/", wantLog: leftOut + `level=ERROR msg="logout failed" err="status 500: no usable answer"`},
		{name: "refused return_to after 2 seconds, then Ory hangs", query: refused, ory: after(2*time.Second, fakeKratos), oryAgain: hangs, wantAsked: []string{refused, ""}, wantLocation: "/", wantLog: leftOut + tooLate, wantTook: 3 * time.Second},
	}
	for _, status := range []int{200, 302, 400, 403, 404, 414, 429, 431, 500, 503} {
		tests = append(tests, logoutTest{
			name: fmt.Sprint("return_to answered ", status), query: refused, ory: reply(status, "null"),
			wantAsked: []string{refused, ""}, wantLocation: flowURL,
			wantLog: fmt.Sprintf(`level=WARN msg="return_to left out" return_to=https://evil.example err="status %d: no usable answer"`, status),
		})
	}
	for _, tt := range tests {
		tt.run(t)
	}
}

// The headers as Chromium, Firefox and WebKit send them, and what nobody sends yet. https://www.w3.org/TR/fetch-metadata/
var (
	vouchedFor = map[string]http.Header{
		"click":                            {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-User": {"?1"}},
		"click in WebKit, or a script":     {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"document"}},
		"click on a page of the same site": {"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-User": {"?1"}},
		"no destination":                   {"Sec-Fetch-Site": {"same-origin"}},
		"plain http, or an old browser":    {},
	}
	behindWorker  = http.Header{"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"empty"}}
	notVouchedFor = map[string]http.Header{
		"typed URL, its reload, and the way back to it in Chromium": {"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-User": {"?1"}},
		"typed URL, Back button or reload in WebKit":                {"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Dest": {"document"}},
		"click on another site, or in a window of an opaque origin": {"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-User": {"?1"}},
		"another site, and no destination":                          {"Sec-Fetch-Site": {"cross-site"}},
		"site unheard of":                                           {"Sec-Fetch-Site": {"same-planet"}, "Sec-Fetch-Dest": {"document"}},
		"header that a proxy has doubled":                           {"Sec-Fetch-Site": {"same-origin, same-origin"}, "Sec-Fetch-Dest": {"document"}},
		"click in a frame, or under Cypress":                        {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"iframe"}, "Sec-Fetch-User": {"?1"}},
		"service worker in Chromium and WebKit":                     behindWorker,
		"service worker in Firefox, or fetch by htmx":               {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"same-origin"}, "Sec-Fetch-Dest": {"empty"}},
		"request that a worker rebuilt, or fetch by Turbo":          {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"cors"}, "Sec-Fetch-Dest": {"empty"}},
		"navigation preload":                                        {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"document"}, "Service-Worker-Navigation-Preload": {"true"}},
		"navigation preload with an empty header":                   {"Service-Worker-Navigation-Preload": {""}},
		"image":                  {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}},
		"destination unheard of": {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Dest": {"unheard-of"}},
	}
	prefetches = []http.Header{
		{"Sec-Purpose": {"prefetch"}}, {"Sec-Purpose": {"prefetch;prerender"}}, {"Purpose": {"prefetch"}}, {"Purpose": {""}},
		{"X-Purpose": {"preview"}}, {"X-Moz": {"prefetch"}}, {"X-Sec-Purpose": {"prefetch"}}, // the last one by Turbo
	}
)

func TestIsPrefetch(t *testing.T) {
	for _, h := range prefetches {
		check(t, fmt.Sprintf("isPrefetch(%v)", h), isPrefetch(h), true)
	}
	check(t, "isPrefetch(nil)", isPrefetch(nil), false)
}

func TestBrowserVouches(t *testing.T) {
	for name, h := range vouchedFor {
		check(t, name+": browserVouches", browserVouches(h), true)
	}
	for name, h := range notVouchedFor {
		check(t, name+": browserVouches", browserVouches(h), false)
	}
}

// withCookie returns h with the user's session cookie.
func withCookie(h http.Header) http.Header {
	h = h.Clone()
	h["Cookie"] = []string{sessionCookie}
	return h
}

// Where no browser vouches, the flow's logout token signs out, and nothing else does. What else comes is asked. What
// has no token at all costs Ory one question without a return_to, and the log nothing.
func TestToken(t *testing.T) {
	for name, h := range notVouchedFor {
		for _, tt := range []logoutTest{
			{name: "the token", query: "logout_token=SECRET-TOKEN", wantLocation: flowURL},
			{name: "the token and return_to", query: "logout_token=SECRET-TOKEN&return_to=http://app.example", wantAsked: []string{"return_to=http%3A%2F%2Fapp.example"}, wantLocation: flowURL},
			{name: "the token, then another", query: "logout_token=SECRET-TOKEN&logout_token=planted", wantLocation: flowURL},
			{name: "another token, then the token", query: "logout_token=planted&logout_token=SECRET-TOKEN", wantToken: flowToken},
			{name: "another token", query: "logout_token=planted", wantToken: flowToken},
			{name: "the token's beginning", query: "logout_token=SECRET", wantToken: flowToken},
			{name: "more than the token", query: "logout_token=SECRET-TOKENS", wantToken: flowToken},
			{name: "another token, and a refused return_to", query: "logout_token=planted&" + refused, wantAsked: []string{refused, ""}, wantToken: flowToken, wantLog: leftOut},
			{name: "no token", query: refused, wantToken: flowToken},
			{name: "empty token", query: refused + "&logout_token=", wantToken: flowToken},
			{name: "no token, and Ory's is empty", ory: reply(200, tokenless)},
			{name: "empty token, and so is Ory's", query: "logout_token=", ory: reply(200, tokenless)},
			{name: "the token of a session that has ended", query: "logout_token=SECRET-TOKEN", ory: reply(401, noSession)},
		} {
			tt.name = name + ", " + tt.name
			tt.header = withCookie(h)
			tt.run(t)
		}
		logoutTest{name: name + ", no Cookie header", header: h, wantAsked: []string{}}.run(t)
	}
}

// A prefetch is refused at once, and Ory is not asked, whatever it would answer and whatever the query says.
func TestPrefetch(t *testing.T) {
	for _, h := range prefetches {
		for _, answer := range oryAnswers {
			for _, query := range []string{"", "logout_token=" + flowToken} {
				for _, header := range []http.Header{h, withCookie(h)} {
					logoutTest{name: fmt.Sprint(header, query, answer.name), query: query, header: header, ory: answer.ServeHTTP, wantAsked: []string{}}.run(t)
				}
			}
		}
	}
}

// The page's link is the request's own URL with the token. So it is under a sub-path that a proxy or a handler strips, too.
func TestPage(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		const query = "a=1%2B1&logout_token=of-an-ended-session&ngsw-bypass=&return_to=http%3A%2F%2Fapp.example%2F%3Fa%26b"
		app := newApp(t, fakeKratos)
		resp := get(t, app, "/logout?"+query, withCookie(behindWorker))
		checkContains(t, resp.Body.String(), `<a href="?`+strings.ReplaceAll(strings.Replace(query, "of-an-ended-session", flowToken, 1), "&", "&amp;")+`" target="_top">`)
		checkContains(t, resp.Body.String(), `<meta name="turbo-visit-control" content="reload">`+"\n<title>Logout</title><h1>Do you want to sign out?</h1>")
		checkHeader(t, resp, "Content-Type", "text/html; charset=utf-8")
		checkHeader(t, resp, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
		checkHeader(t, resp, "HX-Redirect", "")
		checkContains(t, get(t, app, "/logout?logout_token=x", behindWorker).Body.String(), `<h1>You are signed out.</h1><p><a href="." target="_top">Continue</a>`)
		checkContains(t, get(t, app, "/logout", behindWorker).Body.String(), "<h1>Do you want to sign out?</h1>")
		checkContains(t, get(t, app, "/logout?logout_token=x", prefetches[0]).Body.String(), "<h1>Do you want to sign out?</h1>")
		checkContains(t, get(t, newApp(t, reply(500, "")), "/logout?logout_token=x", withCookie(behindWorker)).Body.String(), "<h1>Do you want")
		r := newRequest(t.Context(), "/shop/logout?"+query, withCookie(behindWorker))
		r.Header.Set("HX-Request", "true")
		resp = httptest.NewRecorder()
		http.StripPrefix("/shop", app.routes()).ServeHTTP(resp, r)
		checkPage(t, resp, query, flowToken)
		checkHeader(t, resp, "HX-Redirect", "/shop/logout?"+query)
	})
}

// checkPage checks that resp is the page that asks the user, and that its link has query, with token as logout_token.
func checkPage(t *testing.T, resp *httptest.ResponseRecorder, query, token string) {
	t.Helper()
	check(t, "status", resp.Code, http.StatusForbidden)
	values, _ := url.ParseQuery(query)
	values.Set("logout_token", token)
	checkContains(t, resp.Body.String(), `<a href="?`+html.EscapeString(values.Encode())+`" target="_top">Logout</a>`)
}

func checkContains(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}

// checkRedirect checks that resp leads to location.
func checkRedirect(t *testing.T, resp *httptest.ResponseRecorder, location string) {
	t.Helper()
	check(t, "status", resp.Code, http.StatusSeeOther)
	checkHeader(t, resp, "Location", location)
}

// oryAnswer is what Ory, or what stands in its place, may send.
type oryAnswer struct {
	name    string
	raw     string // what goes over the connection, which then ends
	hangs   bool   // the connection does not end
	waits   bool   // the app waits as long as it may
	want    string // signedIn or signedOut; neither is known, if empty
	wantErr string // that is logged, as slog prints it
}

const signedIn, signedOut = "signed in", "signed out"

var oryAnswers = []oryAnswer{
	{name: "flow", raw: rawJSON(200, flowJSON(flowURL)), want: signedIn},
	{name: "flow of 128 KiB", raw: rawJSON(200, padded(flowJSON(flowURL), 128<<10)), want: signedIn},
	{name: "no session, Kratos v0.10 and newer", raw: rawJSON(401, noSession), want: signedOut},
	{name: "401 by a gateway, HTML", raw: raw(401, "Content-Type: text/html", "<h1>Unauthorized</h1>"), wantErr: `"status 401: no usable answer"`},
	{name: "401 by a gateway, JSON", raw: rawJSON(401, `{"message":"Unauthorized","error":"no"}`), wantErr: `"status 401: no usable answer"`},
	{name: "session_inactive, but not 401", raw: rawJSON(403, noSession), wantErr: `"status 403: No active session was found in this request."`},
	{name: "bad request", raw: rawJSON(400, `{"error":{"reason":"That is wrong.","message":"Bad."}}`), wantErr: `"status 400: That is wrong."`},
	{name: "rate limited", raw: rawJSON(429, `{"error":{"code":429,"reason":"Too fast."}}`), wantErr: `"status 429: Too fast."`},
	{name: "database is broken", raw: rawJSON(500, `{"error":{"code":500,"message":"no such table: sessions"}}`), wantErr: `"status 500: no such table: sessions"`},
	{name: "long reason", raw: rawJSON(500, `{"error":{"reason":"`+strings.Repeat("r", 60000)+`"}}`), wantErr: `"status 500: ` + strings.Repeat("r", 188) + `"`},
	{name: "redirect", raw: raw(307, "Location: https://SECRET:SECRET@ory.example:4434/?token=SECRET-TOKEN", ""), wantErr: `"status 307: redirect to https://ory.example:4434"`},
	{name: "relative redirect", raw: raw(302, "Location: /?token=SECRET-TOKEN", ""), wantErr: `"status 302: redirect to http://ory.example"`},
	{name: "redirect to no URL", raw: raw(302, "Location: http://%/?token=SECRET-TOKEN", ""), wantErr: `"no usable answer"`},
	{name: "Location, but no redirect", raw: raw(201, "Location: http://ory.example:4434", ""), wantErr: `"status 201: no usable answer"`},
	{name: "switching protocols", raw: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: SECRET-TOKEN\r\n\r\n", hangs: true, wantErr: `"status 101: no usable answer"`},
	{name: "hangs", hangs: true, waits: true, wantErr: `"context deadline exceeded"`},
	{name: "hangs in the body", raw: rawJSON(200, flowJSON(flowURL))[:150], hangs: true, waits: true, wantErr: `"status 200: context deadline exceeded"`},
	{name: "hangs up", wantErr: "EOF"},
	{name: "hangs up in the body", raw: rawJSON(200, flowJSON(flowURL))[:150], wantErr: `"status 200: unexpected EOF"`},
	{name: "flow of 128 KiB and one byte", raw: rawJSON(200, padded(flowJSON(flowURL), 128<<10+1)), wantErr: `"status 200: no usable answer"`},
	{name: "not HTTP", raw: flowURL, wantErr: `"no usable answer"`},
	{name: "bad header", raw: "HTTP/1.1 200 OK\r\nSECRET-TOKEN\r\n\r\n", wantErr: `"no usable answer"`},
	{name: "garbage", raw: rawJSON(200, flowJSON(flowURL)[1:]), wantErr: `"status 200: no usable answer"`},
	{name: "not JSON", raw: raw(200, "Content-Type: text/html", flowJSON(flowURL)), wantErr: `"status 200: no usable answer"`},
	{name: "null", raw: rawJSON(200, "null"), wantErr: `"status 200: no usable answer"`},
	{name: "empty body", raw: rawJSON(200, ""), wantErr: `"status 200: no usable answer"`},
	{name: "no logout_url", raw: rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), wantErr: `"status 200: no usable answer"`},
	{name: "relative logout_url", raw: rawJSON(200, flowJSON("/logout?token=SECRET-TOKEN")), wantErr: `"status 200: no usable answer"`},
	{name: "logout_url without a host", raw: rawJSON(200, flowJSON("http://:80/?token=SECRET-TOKEN")), wantErr: `"status 200: no usable answer"`},
	{name: "script as logout_url", raw: rawJSON(200, flowJSON("javascript://x/?SECRET-TOKEN")), wantErr: `"status 200: no usable answer"`},
	{name: "line break in logout_url", raw: rawJSON(200, flowJSON(flowURL+`\r\nSet-Cookie: a=b`)), wantErr: `"status 200: no usable answer"`},
}

// Whatever Ory answers, each request has an answer in time, and the home page tells the truth.
func TestOryAnswers(t *testing.T) {
	for _, tt := range oryAnswers {
		click := logoutTest{name: tt.name + ", click", ory: tt.ServeHTTP, wantLocation: "/"}
		notVouched := logoutTest{name: tt.name + ", not vouched for", header: withCookie(behindWorker), ory: tt.ServeHTTP}
		var wantHomeTook time.Duration
		var wantHomeLog string
		switch tt.want {
		case signedIn:
			click.wantLocation = flowURL
			notVouched.wantToken = flowToken
		case "":
			click.wantLog = `level=ERROR msg="logout failed" err=` + tt.wantErr
			notVouched.wantLog = click.wantLog
			wantHomeLog = `level=ERROR msg="session unknown" err=` + tt.wantErr
		}
		if tt.waits {
			click.wantTook = 3 * time.Second
			notVouched.wantTook = 3 * time.Second
			wantHomeTook = 1500 * time.Millisecond
		}
		click.run(t)
		notVouched.run(t)
		bubble(t, tt.name+", home page", func(t *testing.T) {
			log := captureLog(t)
			start := time.Now()
			resp := get(t, newApp(t, tt.ServeHTTP), "/", user)
			check(t, "duration", time.Since(start), wantHomeTook)
			checkHome(t, resp, tt.want)
			checkLog(t, log, wantHomeLog)
		})
	}
}

// checkHome checks that a home page says want, has one link, and is not shown in a frame.
func checkHome(t *testing.T, resp *httptest.ResponseRecorder, want string) {
	t.Helper()
	const logoutLink = `<p><a href="/logout" target="_top">Logout</a>`
	text := map[string]string{
		"":        "<h1>You may be signed in.</h1>\n<p>Ory could not tell. If you clicked Logout, you may still be signed in.\n" + logoutLink,
		signedIn:  "<h1>You are signed in.</h1>\n\n" + logoutLink,
		signedOut: "<h1>You are signed out.</h1>\n\n" + `<p><a href="http://ory.example/self-service/login/browser" target="_top">Sign in</a>`,
	}[want]
	check(t, "status", resp.Code, http.StatusOK)
	checkContains(t, resp.Body.String(), text+"\n<script>")
	checkHeader(t, resp, "Content-Security-Policy", "frame-ancestors 'none'")
}

// A browser that went away is nobody's fault. When the app's own patience ends, as in a timeout middleware, Ory has failed.
func TestGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		byBrowser  bool
		wantLog    string
	}{
		{name: "Logout, by the browser", path: "/logout?return_to=http%3A%2F%2Fapp.example", byBrowser: true},
		{name: "Logout, by the app", path: "/logout", wantLog: `level=ERROR msg="logout failed" err="context deadline exceeded"`},
		{name: "home page, by the browser", path: "/", byBrowser: true},
		{name: "home page, by the app", path: "/", wantLog: `level=ERROR msg="session unknown" err="context deadline exceeded"`},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := newApp(t, oryAnswer{hangs: true}.ServeHTTP)
			start := time.Now()
			if tt.byBrowser {
				leave(t, app, tt.path)
			} else {
				http.TimeoutHandler(app.routes(), time.Second, "").ServeHTTP(httptest.NewRecorder(), newRequest(t.Context(), tt.path, user))
			}
			synctest.Wait() // until the handler has ended, too
			check(t, "duration", time.Since(start), time.Second)
			checkLog(t, log, tt.wantLog)
		})
	}
}

// However much Ory sends, a request takes little memory.
func TestLargeAnswers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	large := strings.Repeat(" ", 10<<20)
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	io.WriteString(zip, large)
	zip.Close()
	for _, tt := range []struct{ name, raw string }{
		{"10 MiB", head + "\r\n" + large},
		{"10 MiB, compressed", head + "Content-Encoding: gzip\r\n\r\n" + zipped.String()},
		{"header", head + "X-Large: " + large},
		{"JSON that is costly to decode", head + "\r\n" + costlyJSON(128<<10)},
		{"more of it", head + "\r\n" + costlyJSON(1<<20)},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			captureLog(t)
			app := newApp(t, oryAnswer{raw: tt.raw}.ServeHTTP)
			allocated := totalAlloc()
			checkHeader(t, get(t, app, "/logout", user), "Location", "/")
			if got, limit := totalAlloc()-allocated, uint64(16<<20); got > limit {
				t.Errorf("got %d bytes allocated, want at most %d", got, limit)
			}
		})
	}
}

// totalAlloc returns how many bytes the process has allocated since its start.
func totalAlloc() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// What is wrong with the way to Ory is logged in words that help.
func TestWrongWayToOry(t *testing.T) {
	plain := startOry(t, fakeKratos)
	untrusted := httptest.NewTLSServer(http.HandlerFunc(fakeKratos))
	defer untrusted.Close()
	const noURL = `"the URL of Ory is not an absolute http or https URL"`
	for _, tt := range []struct{ name, oryURL, wantErr string }{
		{"nobody listens", "http://127.0.0.1:1", `"dial tcp `},
		{"https to an http port", strings.Replace(plain.URL, "http:", "https:", 1), `"http: server gave HTTP response to HTTPS client"`},
		{"certificate is not trusted", untrusted.URL, `"tls: failed to verify certificate: x509: `},
		{"no scheme", "localhost:4000", noURL},
		{"no scheme, an IP address", "127.0.0.1:4000", noURL},
		{"empty", "", noURL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := &App{ory: newOryClient(tt.oryURL)}
			checkHeader(t, get(t, app, "/logout", user), "Location", "/")
			checkContains(t, log.String(), ` level=ERROR msg="logout failed" err=`+tt.wantErr)
		})
	}
}

// The app speaks HTTP/1.1 to an Ory that offers HTTP/2 too.
func TestHTTP1ToOry(t *testing.T) {
	fake := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check(t, "protocol to Ory", r.Proto, "HTTP/1.1")
		fakeKratos(w, r)
	}))
	defer fake.Close()
	fake.EnableHTTP2 = true
	fake.StartTLS()
	app := &App{ory: newOryClient(fake.URL)}
	transportOf(app).TLSClientConfig = fake.Client().Transport.(*http.Transport).TLSClientConfig
	transportOf(app).ForceAttemptHTTP2 = true // which a TLSClientConfig would turn off
	checkHeader(t, get(t, app, "/logout", user), "Location", flowURL)
}

// The app reaches Ory through the proxy that the environment names.
func TestProxyToOry(t *testing.T) {
	proxy := startOry(t, fakeKratos)
	_, appURL := startProgram(t, "ORY_SDK_URL=http://ory.example", "HTTP_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=")
	check(t, "Location", location(appURL), flowURL)
}

// A connection to Ory is kept for every logout that was under way at once, for 90 seconds, though a browser goes away. When
// connections are dead without being closed, as behind a router that has forgotten them, one click fails, and not one for
// each.
func TestConnectionsToOry(t *testing.T) {
	start := func(t *testing.T) (app *App, opened, dead *atomic.Int64) {
		opened, dead = new(atomic.Int64), new(atomic.Int64) // connections
		app = newApp(t, func(w http.ResponseWriter, r *http.Request) {
			if opened.Load() == dead.Load() { // No connection has been opened since all died.
				<-r.Context().Done()
			}
			time.Sleep(2 * time.Second) // so that all logouts are under way at once
			fakeKratos(w, r)
		})
		dial := transportOf(app).DialContext
		transportOf(app).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			opened.Add(1)
			return dial(ctx, network, addr)
		}
		return app, opened, dead
	}
	bubble(t, "kept", func(t *testing.T) {
		const clients = 512
		app, opened, _ := start(t)
		for _, tt := range []struct {
			idle time.Duration
			want int64
		}{{0, clients}, {0, clients}, {90*time.Second - 1, clients}, {90 * time.Second, 2 * clients}} {
			time.Sleep(tt.idle)
			synctest.Wait()
			atOnce(clients, func() { checkRedirect(t, get(t, app, "/logout", user), flowURL) })
			check(t, fmt.Sprintf("connections after %v without a logout:", tt.idle), opened.Load(), tt.want)
		}
	})
	bubble(t, "kept though a browser goes away", func(t *testing.T) {
		app, opened, _ := start(t)
		atOnce(10, func() { get(t, app, "/logout", user) })
		leave(t, app, "/logout")
		atOnce(9, func() { get(t, app, "/logout", user) })
		check(t, "connections", opened.Load(), 10)
	})
	bubble(t, "dead", func(t *testing.T) {
		app, opened, dead := start(t)
		atOnce(10, func() { get(t, app, "/logout", user) })
		dead.Store(opened.Load())
		for _, want := range []string{"/", flowURL, flowURL} {
			checkRedirect(t, get(t, app, "/logout", user), want)
		}
	})
}

// A TLS handshake with Ory ends after 3 seconds, even if the browser has left before.
func TestTLSHandshake(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		app := &App{ory: newOryClient("https://ory.example")}
		client, server := net.Pipe()
		transportOf(app).DialContext = func(context.Context, string, string) (net.Conn, error) { return client, nil }
		start := time.Now()
		leave(t, app, "/logout")
		io.Copy(io.Discard, server) // until the app closes the connection
		check(t, "duration", time.Since(start), 3*time.Second)
	})
}

// Without a Cookie header, Ory is not asked: here, it would not answer.
func TestRoutes(t *testing.T) {
	app := &App{ory: newOryClient("http://ory.example")}
	checkHome(t, get(t, app, "/", nil), signedOut)
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/", `200, Allow "", Cache-Control "no-store"`},
		{"HEAD", "/", `200, Allow "", Cache-Control "no-store"`},
		{"POST", "/", `405, Allow "GET, HEAD", Cache-Control ""`},
		{"HEAD", "/logout", `405, Allow "GET", Cache-Control "no-store"`},
		{"POST", "/logout", `405, Allow "GET, HEAD", Cache-Control ""`},
		{"GET", "/logout/", `404, Allow "", Cache-Control ""`},
	} {
		resp := httptest.NewRecorder()
		app.routes().ServeHTTP(resp, httptest.NewRequest(tt.method, tt.path, nil))
		got := fmt.Sprintf("%d, Allow %q, Cache-Control %q", resp.Code, resp.Header().Get("Allow"), resp.Header().Get("Cache-Control"))
		check(t, tt.method+" "+tt.path+":", got, tt.want)
	}
}

// A client that is slow to send, to read or to leave is cut off, and so is one that sends too much. One that only announces a
// body has an answer before.
func TestGreedyClients(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, tt := range []struct {
		name, sends string
		readsAfter  time.Duration
		wantAnswer  string
		wantEnd     time.Duration
	}{
		{name: "request without end", sends: get, wantEnd: 10 * time.Second},
		{name: "body that never comes", sends: get + "Content-Length: 1\r\n\r\n", wantAnswer: "HTTP/1.1 404 ", wantEnd: 10 * time.Second},
		{name: "large header", sends: get + "X-Large: " + strings.Repeat("x", 80<<10), wantAnswer: "HTTP/1.1 431 ", wantEnd: 500 * time.Millisecond},
		{name: "answer read in time", sends: get + "\r\n", readsAfter: 15*time.Second - 1, wantAnswer: "HTTP/1.1 404 ", wantEnd: 15*time.Second - 1 + 11*time.Minute},
		{name: "answer read too late", sends: get + "\r\n", readsAfter: 15*time.Second + 1, wantEnd: 15*time.Second + 1},
		{name: "no further request", sends: get + "\r\n", wantAnswer: "HTTP/1.1 404 ", wantEnd: 11 * time.Minute},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			conn, _ := serveInMemory(t, newServer(http.NotFoundHandler()))(t.Context(), "", "")
			start := time.Now()
			go io.WriteString(conn, tt.sends)
			time.Sleep(tt.readsAfter)
			answer, _ := io.ReadAll(conn)
			check(t, "end after", time.Since(start), tt.wantEnd)
			check(t, "beginning of the answer", string(answer[:min(len(answer), len("HTTP/1.1 404 "))]), tt.wantAnswer)
		})
	}
}

// What goes wrong in a handler is logged.
func TestServerLog(t *testing.T) {
	log := captureLog(t)
	newServer(nil).ErrorLog.Print("http: panic serving")
	checkLog(t, log, `level=ERROR msg="http: panic serving"`)
}

// A stop leaves a request under way 10 seconds.
func TestServe(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		ln := make(memoryListener)
		ctx, stop := context.WithCancel(t.Context())
		go (&http.Client{Transport: &http.Transport{DialContext: ln.dial}}).Get("http://app.example/")
		time.AfterFunc(time.Second, stop)
		start := time.Now()
		err := serve(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }))
		check(t, "error", err, nil)
		check(t, "duration", time.Since(start), 11*time.Second)
		time.Sleep(time.Minute) // so that the handler ends
	})
	ln, _ := net.Listen("tcp", "localhost:0")
	ln.Close()
	check(t, "error without a listener", errors.Is(serve(t.Context(), ln, nil), net.ErrClosed), true)
}

func TestConfigurationErrors(t *testing.T) {
	if ln, err := net.Listen("tcp", ":3000"); err == nil { // else another program has it
		defer ln.Close()
	}
	for _, tt := range []struct{ name, variable, value, want string }{
		{"default port is taken", "PORT", "", "listen tcp :3000: bind: address already in use"},
		{"port is no number", "PORT", "abc", "tcp/abc"},
		{"Ory without a scheme", "ORY_SDK_URL", "localhost:4000", "like http://localhost:4000\n"},
		{"Ory without a host", "ORY_SDK_URL", "http://:4000", ""},
		{"Ory by another protocol", "ORY_SDK_URL", "ftp://localhost:4000", ""},
		{"Ory with a space at its end", "ORY_SDK_URL", "http://localhost:4000/ ", ""},
		{"Ory with a query", "ORY_SDK_URL", "http://localhost:4000/?a=b", ""},
		{"Ory with an empty fragment", "ORY_SDK_URL", "http://localhost:4000#", ""},
		{"Ory with a password", "ORY_SDK_URL", "http://user:SECRET@localhost:4000", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := program(t, "PORT=0", tt.variable+"="+tt.value)
			out, _ := cmd.CombinedOutput()
			check(t, "exit code", cmd.ProcessState.ExitCode(), 1)
			got, want := string(out), "ory-logout: "+tt.variable+" is not usable: set it to "
			if !strings.HasPrefix(got, want) || !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
				t.Errorf("got output %q, want one line that begins with %q and contains %q", got, want, tt.want)
			}
		})
	}
}

// A signal lets a logout that is under way finish, and no new one begin. A second one ends the program at once.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name         string
		signal       os.Signal
		twice        bool
		wantLocation string
		wantCode     int // -1 if a signal ended it
	}{
		{name: "SIGINT", signal: os.Interrupt, wantLocation: flowURL},
		{name: "SIGTERM", signal: syscall.SIGTERM, wantLocation: flowURL},
		{name: "second signal", signal: syscall.SIGTERM, twice: true, wantCode: -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan bool, 1)
			release := make(chan bool, 1)
			defer close(release)
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				asked <- true
				<-release
				fakeKratos(w, r)
			})
			cmd, appURL := startProgram(t, "ORY_SDK_URL="+fake.URL)
			located := make(chan string, 1)
			go func() { located <- location(appURL) }()
			select {
			case <-asked:
			case got := <-located:
				t.Fatalf("got Location %q, and Ory was not asked", got)
			}
			cmd.Process.Signal(tt.signal)
			var err error
			for err == nil { // The port is still open.
				_, err = http.Head(appURL)
			}
			for tt.twice && len(located) == 0 { // The program has not ended.
				cmd.Process.Signal(tt.signal)
				time.Sleep(time.Millisecond)
			}
			release <- true
			check(t, "Location", <-located, tt.wantLocation)
			cmd.Wait()
			check(t, "exit code", cmd.ProcessState.ExitCode(), tt.wantCode)
		})
	}
}

// A signal ends the app cleanly as soon as the log says that it listens, and in front of which Ory.
func TestEarlySignal(t *testing.T) {
	t.Setenv("ORY_SDK_URL", "")
	t.Setenv("PORT", "0")
	log := &terminator{}
	logTo(log)
	defer logTo(io.Discard)
	check(t, "error", run(), nil)
	checkContains(t, log.String(), " ory=http://localhost:4000\n")
}

// terminator is a buffer that sends this process SIGTERM when something is written to it.
type terminator struct{ bytes.Buffer }

func (b *terminator) Write(p []byte) (int, error) {
	self, _ := os.FindProcess(os.Getpid())
	self.Signal(syscall.SIGTERM)
	return b.Buffer.Write(p)
}

// FuzzLogout checks what must hold whatever Ory and the browser send: without the flow's token, no prefetch and no request of
// another site or of a service worker is redirected, a redirect leads to / or where Ory says, in time and in little memory,
// and no secret is logged.
func FuzzLogout(f *testing.F) {
	const click = "Cookie: SECRET-COOKIE=SECRET-COOKIE"
	const worker = click + "\r\nSec-Fetch-Dest: empty"
	const otherSite = click + "\r\nSec-Fetch-Site: cross-site"
	good := rawJSON(200, flowJSON(flowURL))
	for _, answer := range oryAnswers {
		f.Add(answer.raw, answer.hangs, "", click)
		f.Add(answer.raw, answer.hangs, "logout_token=SECRET-TOKEN", worker)
	}
	f.Add(rawJSON(200, tokenless), false, "logout_token=", worker)
	f.Add(rawJSON(400, `{"error":{"id":"a","reason":"b"}}`), false, "return_to=https%3A%2F%2Fevil.example", click)
	f.Add(good+"more than it announced: SECRET-TOKEN", false, "return_to=%0d%0a;&&=", click)
	f.Add(rawJSON(200, costlyJSON(128<<10)), true, "", click)
	f.Add(good, false, "logout_token=SECRET-TOKEN&return_to=http%3A%2F%2Fapp.example", otherSite)
	f.Add(good, false, "logout_token=SECRET-TOKEN", click+"\r\nService-Worker-Navigation-Preload: true\r\nPurpose: prefetch")
	ownWords := regexp.MustCompile(`(?i)reason|message|id|location`) // of Ory, which are logged, as is return_to's host
	f.Fuzz(func(t *testing.T, raw string, hangs bool, query, header string) {
		// Nothing that the fuzzer can have put elsewhere. The length stays, for the sake of Content-Length.
		cookie := rand.Text()
		token := rand.Text()[:len("SECRET-TOKEN")]
		header = strings.ReplaceAll(header, "SECRET-COOKIE", cookie)
		query = strings.ReplaceAll(query, "SECRET-TOKEN", token)
		raw = strings.ReplaceAll(raw, "SECRET-TOKEN", token)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /logout?" + query + " HTTP/1.1\r\n" + header + "\r\n\r\n")))
		if err != nil {
			t.Skip()
		}
		log := captureLog(t)
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				oryAnswer{raw: raw, hangs: hangs}.ServeHTTP(w, r)
			})
			start := time.Now()
			allocated := totalAlloc()
			w := httptest.NewRecorder()
			app.routes().ServeHTTP(w, r)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("got an answer after %v", took)
			}
			if got, limit := totalAlloc()-allocated, uint64(64<<20); got > limit {
				t.Errorf("got %d bytes allocated, want at most %d", got, limit)
			}

			prefetch := r.Header["Purpose"] != nil || r.Header["Sec-Purpose"] != nil
			byWorker := r.Header.Get("Sec-Fetch-Dest") == "empty" || r.Header["Service-Worker-Navigation-Preload"] != nil
			needsToken := r.Header.Get("Sec-Fetch-Site") == "cross-site" || byWorker
			location := w.Header().Get("Location")
			switch {
			case w.Code != 303 && w.Code != 403, prefetch && (w.Code != 403 || asked > 0), needsToken && location == "/":
				t.Errorf("got %d, Location %q, and Ory asked %d times", w.Code, location, asked)
			case w.Code == 303 && location != "/":
				transportOf(app).CloseIdleConnections() // They may be asked, but do not answer twice.
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				flow, _, err := app.ory.FrontendAPI.CreateBrowserLogoutFlow(ctx).Execute()
				want := httptest.NewRecorder()
				http.Redirect(want, r, flow.GetLogoutUrl(), http.StatusSeeOther)
				isConfirmed := flow.GetLogoutToken() != "" && flow.GetLogoutToken() == r.FormValue("logout_token")
				if want := want.Header().Get("Location"); err != nil || location != want || needsToken && !isConfirmed {
					t.Errorf("got Location %q, want %q, confirmed %t (%v)", location, want, isConfirmed, err)
				}
			}
		})
		mayBeLogged := ownWords.MatchString(raw) || strings.Contains(r.FormValue("return_to"), token)
		if log := log.String(); strings.Contains(log, cookie) || strings.Contains(log, token) && !mayBeLogged {
			t.Errorf("a secret is logged:\n%s", log)
		}
	})
}

// BenchmarkLogout compares the app with a bare reverse proxy, which is what one hop to Ory costs at least, and with Ory's
// sample, in front of the same Ory.
func BenchmarkLogout(b *testing.B) {
	appHandler := func(oryURL string) http.Handler { return (&App{ory: newOryClient(oryURL)}).routes() }
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} { // of Ory's answers
		for _, clients := range []int{1, 16, 256} {
			for _, server := range []struct {
				name    string
				handler func(oryURL string) http.Handler
			}{{"app", appHandler}, {"proxy", proxyHandler}, {"sample", sampleHandler}} {
				b.Run(fmt.Sprintf("delay=%v/clients=%d/server=%s", delay, clients, server.name), func(b *testing.B) {
					fake := startOry(b, after(delay, fakeKratos))
					srv := httptest.NewServer(server.handler(fake.URL))
					defer srv.Close()
					load(b, srv, clients, 2*clients) // opens the connections
					b.ResetTimer()
					load(b, srv, clients, b.N)
				})
			}
		}
	}
}

// sampleHandler does what Ory's sample does, with its client: net/http's default.
func sampleHandler(oryURL string) http.Handler {
	cfg := ory.NewConfiguration()
	cfg.Servers = ory.ServerConfigurations{{URL: oryURL}}
	client := ory.NewAPIClient(cfg)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flow, _, err := client.FrontendAPI.CreateBrowserLogoutFlow(r.Context()).Cookie(r.Header.Get("Cookie")).Execute()
		if err != nil {
			panic(err)
		}
		http.Redirect(w, r, flow.LogoutUrl, http.StatusSeeOther)
	})
}

// proxyHandler hands every request on to Ory.
func proxyHandler(oryURL string) http.Handler {
	target, _ := url.Parse(oryURL)
	return &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 20},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
	}
}

// load sends n logouts to srv, over as many connections as there are clients. It does little else, so that it is the server
// that is measured.
func load(b *testing.B, srv *httptest.Server, clients, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	atOnce(clients, func() {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for left.Add(-1) >= 0 {
			io.WriteString(conn, "GET /logout HTTP/1.1\r\nHost: localhost\r\nCookie: "+sessionCookie+"\r\n\r\n")
			resp, err := http.ReadResponse(answers, nil)
			if err != nil || resp.Header.Get("Location") == "/" || resp.StatusCode > 303 {
				b.Errorf("got %v, %v", resp, err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

// TestMain runs the program itself, in place of its tests, for the tests that start it.
func TestMain(m *testing.M) {
	if os.Getenv("ORY_LOGOUT_TEST_MAIN") != "" {
		main()
		return
	}
	logTo(io.Discard)
	os.Exit(m.Run())
}

// program returns a command that runs the app's main, for 20 seconds at the most.
func program(t *testing.T, env ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "ORY_LOGOUT_TEST_MAIN=1")...)
	return cmd
}

// startProgram starts the app's main on a free port.
func startProgram(t *testing.T, env ...string) (cmd *exec.Cmd, appURL string) {
	t.Helper()
	cmd = program(t, append(env, "PORT=0")...)
	stderr, _ := cmd.StderrPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stderr).ReadString('\n')
	found := regexp.MustCompile(` level=INFO msg=listening url=(http://localhost:\d+) `).FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("got log %q", line)
	}
	return cmd, found[1]
}

// get asks app, and returns its answer, a redirect included. It checks what holds for every answer.
func get(t *testing.T, app *App, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Security-Policy", "default-src 'self'") // of the app that logout.go was copied into
	app.routes().ServeHTTP(w, newRequest(t.Context(), target, header))
	checkHeader(t, w, "Cache-Control", "no-store")
	checkHeader(t, w, "Set-Cookie", "")
	if strings.HasPrefix(target, "/logout") && !isPrefetch(header) {
		checkHeader(t, w, "Clear-Site-Data", `"prefetchCache", "prerenderCache"`)
	} else {
		checkHeader(t, w, "Clear-Site-Data", "") // With each hover over Logout, it would throw away what was prefetched.
	}
	return w
}

// leave asks app as a browser that goes away after a second.
func leave(t *testing.T, app *App, target string) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	app.routes().ServeHTTP(httptest.NewRecorder(), newRequest(ctx, target, user))
}

func newRequest(ctx context.Context, target string, header http.Header) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	r.Header = header.Clone()
	return r
}

// location returns where a click on Logout leads in the program at appURL, or "" if there is no answer.
func location(appURL string) string {
	req, _ := http.NewRequest("GET", appURL+"/logout", nil)
	req.Header = user
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get("Location")
}

// check checks the value that is called what.
func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %s %v, want %v", what, got, want)
	}
}

func checkHeader(t *testing.T, resp *httptest.ResponseRecorder, key, want string) {
	t.Helper()
	check(t, key, resp.Header().Get(key), want)
}

// bubble runs a test in a bubble of testing/synctest.
func bubble(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// atOnce runs n copies of f at once, and returns when all have ended.
func atOnce(n int, f func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
}

// newApp returns the app in front of an Ory in memory. The two slashes at the end of Ory's URL are not too many.
func newApp(t *testing.T, ory http.HandlerFunc) *App {
	app := &App{ory: newOryClient("http://ory.example//")}
	transportOf(app).DialContext = serveInMemory(t, &http.Server{Handler: ory})
	t.Cleanup(transportOf(app).CloseIdleConnections)
	return app
}

func transportOf(app *App) *http.Transport {
	return app.ory.GetConfig().HTTPClient.Transport.(oryTransport).Transport
}

// serveInMemory serves srv until the test ends, without a network, as a bubble needs it.
func serveInMemory(t *testing.T, srv *http.Server) (dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	ln := make(memoryListener)
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Shutdown(context.Background()) })
	return ln.dial
}

// memoryListener is a net.Listener whose connections dial makes.
type memoryListener chan net.Conn

func (ln memoryListener) Accept() (net.Conn, error) {
	if conn, open := <-ln; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (ln memoryListener) Close() error {
	close(ln)
	return nil
}

func (ln memoryListener) Addr() net.Addr { return &net.TCPAddr{} }

func (ln memoryListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	ln <- server
	return client, nil
}

// startOry returns an Ory on the network.
func startOry(t testing.TB, answer http.HandlerFunc) *httptest.Server {
	fake := httptest.NewServer(answer)
	t.Cleanup(fake.Close)
	return fake
}

// reply returns a handler that gives one answer, in JSON.
func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// fakeKratos answers as Kratos does: 401 without a session, 400 for a return_to that it does not allow.
func fakeKratos(w http.ResponseWriter, r *http.Request) {
	returnTo := r.FormValue("return_to")
	switch {
	case !strings.Contains(r.Header.Get("Cookie"), sessionCookie):
		reply(401, noSession)(w, r)
	case returnTo != "" && !strings.HasPrefix(returnTo, "http://app.example"):
		const body = `{"error":{"id":"self_service_flow_return_to_forbidden","reason":%q}}`
		reply(400, fmt.Sprintf(body, "Requested return_to URL "+returnTo+" is not allowed."))(w, r)
	default:
		reply(200, flowJSON(flowURL))(w, r)
	}
}

// after returns a handler that waits before h answers.
func after(wait time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		h(w, r)
	}
}

func flowJSON(url string) string { return `{"logout_token":"SECRET-TOKEN","logout_url":"` + url + `"}` }

// padded returns s with spaces after it, size bytes in all.
func padded(s string, size int) string { return s + strings.Repeat(" ", size-len(s)) }

const (
	noSession = `{"error":{"id":"session_inactive","code":401,"status":"Unauthorized","reason":"No active session was found in this request."}}`
	tokenless = `{"logout_token":"","logout_url":"http://ory.example"}`
)

// costlyJSON returns a flow of size bytes that takes many times as much memory to decode.
func costlyJSON(size int) string {
	const head, tail = `{"logout_token":"","logout_url":"","a":[{}`, `]}`
	return head + strings.Repeat(",{}", (size-len(head+tail))/3) + tail
}

// raw returns an answer as it goes over the connection. header is one line.
func raw(status int, header, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), header, len(body), body)
}

func rawJSON(status int, body string) string {
	return raw(status, "Content-Type: application/json", body)
}

func (a oryAnswer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _, _ := http.NewResponseController(w).Hijack()
	defer conn.Close()
	io.Copy(conn, struct{ io.Reader }{strings.NewReader(a.raw)}) // in pieces, as the struct hides WriteTo
	if a.hangs {
		io.Copy(io.Discard, conn) // until the app gives up
	}
}

// captureLog returns what the app logs from now on.
func captureLog(t *testing.T) *bytes.Buffer {
	log := new(bytes.Buffer)
	logTo(log)
	t.Cleanup(func() { logTo(io.Discard) })
	return log
}

// checkLog checks that log has the lines of want, but for their times, and no secret.
func checkLog(t *testing.T, log *bytes.Buffer, want string) {
	t.Helper()
	got := regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), "")
	if strings.TrimSpace(got) != strings.TrimSpace(want) || strings.Contains(got, "SECRET") {
		t.Errorf("got log\n%s\nwant\n%s", got, want)
	}
}
