package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
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
	flowURL       = "https://ory.example/self-service/logout?token=SECRET-TOKEN&a=/%2e%2e/%c3%bc"
	returnURL     = flowURL + "&return_to=allowed"
)

// Queries, as the app passes them on, and what is logged of them.
const (
	allowed  = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
	refused  = "return_to=https%3A%2F%2Fuser%3ASECRET-PASSWORD%40evil.example%2F%3Ftoken%3DSECRET-RETURN"
	theToken = "logout_token=" + flowToken

	leftOut = `level=WARN msg="return_to left out" err="no logout flow: Ory answered 400: self_service_flow_return_to_forbidden"` + "\n"
	notSent = `level=WARN msg="return_to left out" err="return_to is no URL, or an opaque one"` + "\n"
)

// failed returns what is logged when Ory gives no flow for a click, as err says.
func failed(err string) string { return fmt.Sprintf("level=ERROR msg=\"logout failed\" err=%q\n", err) }

// tried returns the error of net/http's client when a question to Ory, with query, has no answer.
func tried(query, why string) string {
	return fmt.Sprintf(`Get "http://ory.example/self-service/logout/browser%s": %s`, query, why)
}

const tooLate = "context deadline exceeded"

// Headers of requests as Chromium, Firefox and WebKit send them, and as proxies pass them on, with the session cookie.
// https://www.w3.org/TR/fetch-metadata/
var (
	click = header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1")

	vouchedFor = map[string]http.Header{
		"click":                              click,
		"click in WebKit, or a script":       header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"click on a page of the same site":   header("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"click on https, behind two proxies": header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: document", "X-Forwarded-Proto: https, https"),
		"no destination":                     header("Sec-Fetch-Site: same-origin"),
		"plain http, or an old browser":      header(),
		"plain http, behind a proxy":         header("X-Forwarded-Proto: http"),
	}
	behindWorker  = header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty")
	notVouchedFor = map[string]http.Header{
		"typed URL, its reload, and the way back to it in Chromium": header("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"typed URL, Back button or reload in WebKit":                header("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"click on another site, or in a window of an opaque origin": header("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"another site, and no destination":                          header("Sec-Fetch-Site: cross-site"),
		"site unheard of":                                           header("Sec-Fetch-Site: same-planet", "Sec-Fetch-Dest: document"),
		"header that a proxy has doubled":                           header("Sec-Fetch-Site: same-origin, same-origin", "Sec-Fetch-Dest: document"),
		"https, and no header":                                      header("X-Forwarded-Proto: https"),
		"https behind two proxies, and no header":                   header("X-Forwarded-Proto: https, https"),
		"https, then http, and no site":                             header("X-Forwarded-Proto: https,http", "Sec-Fetch-Dest: document"),
		"service worker in Chromium and WebKit":                     behindWorker,
		"service worker in Firefox, or fetch by htmx":               header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty"),
		"request that a worker rebuilt, or fetch by Turbo":          header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"),
		"navigation preload":                                        header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Service-Worker-Navigation-Preload: true"),
		"navigation preload with an empty header":                   header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Service-Worker-Navigation-Preload: "),
		"click in a frame, or under Cypress":                        header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Sec-Fetch-User: ?1"),
		"frame":                                                     header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: frame"),
		"embed":                                                     header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: embed"),
		"object":                                                    header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: object"),
		"image":                                                     header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
		"destination unheard of":                                    header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: unheard-of"),
	}
	prefetches = map[string]http.Header{
		"prefetch":             header("Sec-Purpose: prefetch", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"prerender":            header("Sec-Purpose: prefetch;prerender", "Purpose: prefetch", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: document"),
		"old Chromium's":       header("Purpose: prefetch"),
		"old Safari's preview": header("X-Purpose: preview"),
		"old Firefox's":        header("X-Moz: prefetch"),
		"Turbo's":              header("X-Sec-Purpose: prefetch", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"),
	}
)

// header returns the header of a user's request.
func header(lines ...string) http.Header {
	h := http.Header{"Cookie": {sessionCookie}}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, ": ")
		h.Set(key, value)
	}
	return h
}

// logoutTest is a request for /logout, and what comes of it.
type logoutTest struct {
	name         string
	query        string
	header       http.Header      // click, if nil
	ory          http.HandlerFunc // fakeKratos, if nil
	oryAgain     http.HandlerFunc // for the second question; fakeKratos, if nil
	wantAsked    []string         // the query of each question to Ory; nil stands for one question without a query
	wantLocation string           // or, if empty, the page that asks
	wantLink     string           // of that page
	wantLog      string
	wantTook     time.Duration
}

// run runs the test in a bubble of testing/synctest, so that the time it takes is exact.
func (tt logoutTest) run(t *testing.T) {
	if tt.header == nil {
		tt.header = click
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
			checkPage(t, resp, tt.wantLink)
		}
		synctest.Wait() // until Ory knows of the last question, even if it was given up
		check(t, "queries to Ory", fmt.Sprintf("%q", asked), fmt.Sprintf("%q", tt.wantAsked))
		checkLog(t, log, tt.wantLog)
	})
}

// What a click on Logout leads to, and what Ory is asked for it.
func TestLogout(t *testing.T) {
	hangs := oryAnswer{hangs: true}.ServeHTTP
	slow := after(1700*time.Millisecond, fakeKratos) // too slow for two questions
	stranger := http.Header{"Cookie": {"theme=dark"}}
	tests := []logoutTest{
		{name: "session", wantLocation: flowURL},
		{name: "split Cookie header", header: http.Header{"Cookie": {"theme=dark", sessionCookie}}, wantLocation: flowURL},
		{name: "no session", header: stranger, wantLocation: "/"},
		{name: "no Cookie header", header: http.Header{}, wantAsked: []string{}, wantLocation: "/"},
		{name: "empty Cookie header", header: http.Header{"Cookie": {""}}, wantAsked: []string{}, wantLocation: "/"},
		{name: "flow without a token", ory: reply(200, tokenless), wantLocation: "http://ory.example"},
		{name: "logout URL that is not ASCII", ory: reply(200, flowJSON("http://ory.example/é")), wantLocation: "http://ory.example/%c3%a9"},
		{name: "another token", query: "logout_token=planted", wantLocation: flowURL},

		{name: "allowed return_to", query: allowed, wantAsked: []string{"", allowed}, wantLocation: returnURL},
		{name: "empty return_to", query: "return_to=", wantLocation: flowURL},
		{name: "relative return_to", query: "return_to=%2Fbye", wantAsked: []string{"", "return_to=%2Fbye"}, wantLocation: returnURL},
		{name: "refused return_to", query: refused, wantAsked: []string{"", refused}, wantLocation: flowURL, wantLog: leftOut},
		{name: "return_to, nobody signed in", query: refused, header: stranger, wantLocation: "/"},
		{name: "return_to, and the session ends", query: allowed, oryAgain: reply(401, noSession), wantAsked: []string{"", allowed}, wantLocation: "/"},
		{name: "return_to, and Ory hangs", query: refused, ory: hangs, wantLocation: "/", wantLog: failed(tried("", tooLate)), wantTook: 3 * time.Second},
		{name: "return_to, and Ory fails", query: refused, ory: reply(503, ""), wantLocation: "/", wantLog: failed("no logout flow: Ory answered 503: 503 Service Unavailable")},
		{name: "return_to, and then Ory hangs", query: allowed, ory: after(2*time.Second, fakeKratos), oryAgain: hangs, wantAsked: []string{"", allowed}, wantLocation: flowURL,
			wantLog: fmt.Sprintf(`level=WARN msg="return_to left out" err=%q`, tried("?"+allowed, tooLate)), wantTook: 3 * time.Second},

		{name: "slow Ory", ory: slow, wantLocation: flowURL, wantTook: 1700 * time.Millisecond},
		{name: "slow Ory, with the token", query: theToken, header: behindWorker, ory: slow, wantLocation: flowURL, wantTook: 1700 * time.Millisecond},
		{name: "slow Ory, with return_to", query: allowed, ory: slow, oryAgain: slow, wantAsked: []string{"", allowed}, wantLocation: flowURL,
			wantLog: fmt.Sprintf(`level=WARN msg="return_to left out" err=%q`, tried("?"+allowed, tooLate)), wantTook: 3 * time.Second},
		{name: "slow Ory, with both", query: theToken + "&" + allowed, header: behindWorker, ory: slow, oryAgain: slow, wantAsked: []string{"", allowed}, wantLocation: flowURL,
			wantLog: fmt.Sprintf(`level=WARN msg="return_to left out" err=%q`, tried("?"+allowed, tooLate)), wantTook: 3 * time.Second},
	}
	for _, status := range []int{200, 302, 403, 429, 500} {
		tests = append(tests, logoutTest{
			name: fmt.Sprint("return_to answered ", status), query: allowed, oryAgain: reply(status, `{"error":{"id":"why"}}`),
			wantAsked: []string{"", allowed}, wantLocation: flowURL,
			wantLog: fmt.Sprintf(`level=WARN msg="return_to left out" err="no logout flow: Ory answered %d: why"`, status),
		})
	}
	// Browsers find a host in the first five, and Kratos does not.
	for _, returnTo := range []string{`http:\\evil.example`, `http:\/evil.example`, `http:evil.example`, `https:evil.example`, `HTTP:\\evil.example`,
		"javascript:SECRET", "mailto:me", "%", "http://[", " http://app.example", "http://app.example/\x00"} {
		tests = append(tests, logoutTest{name: "return_to " + returnTo, query: "return_to=" + url.QueryEscape(returnTo), wantLocation: flowURL, wantLog: notSent})
	}
	for _, tt := range tests {
		tt.run(t)
	}
}

// What the browser vouches for signs out at once, also under POST, as an adopter may route it. All else is asked; the page's
// link has the token.
func TestVouching(t *testing.T) {
	for name, h := range vouchedFor {
		logoutTest{name: name, header: h, wantLocation: flowURL}.run(t)
	}
	for name, h := range notVouchedFor {
		logoutTest{name: name, header: h, wantLink: "?" + theToken}.run(t)
		logoutTest{name: name + ", with the token", query: theToken, header: h, wantLocation: flowURL}.run(t)
	}
	bubble(t, "POST", func(t *testing.T) {
		for _, tt := range []struct {
			header   http.Header
			wantCode int
		}{{click, http.StatusSeeOther}, {behindWorker, http.StatusForbidden}} {
			r := newRequest(t.Context(), "/logout", tt.header)
			r.Method = http.MethodPost
			resp := httptest.NewRecorder()
			newApp(t, fakeKratos).logoutHandler(resp, r)
			check(t, "status", resp.Code, tt.wantCode)
		}
	})
}

// Where no browser vouches, the session's token signs out, and nothing else does. What is asked costs Ory one question
// without return_to, whatever the query says, so that no other site can tell by the time who is signed in. Nothing is logged.
func TestToken(t *testing.T) {
	for _, tt := range []logoutTest{
		{name: "the token", query: theToken, wantLocation: flowURL},
		{name: "the token and return_to", query: theToken + "&" + allowed, wantAsked: []string{"", allowed}, wantLocation: returnURL},
		{name: "the token, then another", query: theToken + "&logout_token=planted", wantLocation: flowURL},
		{name: "another token, then the token", query: "logout_token=planted&" + theToken, wantLink: "?" + theToken},
		{name: "another token", query: "logout_token=planted", wantLink: "?" + theToken},
		{name: "the token's beginning", query: "logout_token=SECRET", wantLink: "?" + theToken},
		{name: "more than the token", query: theToken + "S", wantLink: "?" + theToken},
		{name: "another token, and a refused return_to", query: "logout_token=planted&" + refused, wantLink: "?" + theToken + "&" + refused},
		{name: "no token, and a refused return_to", query: refused, wantLink: "?" + theToken + "&" + refused},
		{name: "empty token", query: "logout_token=", wantLink: "?" + theToken},
		{name: "no token, and Ory's is empty", ory: reply(200, tokenless), wantLink: "/"},
		{name: "empty token, and so is Ory's", query: "logout_token=", ory: reply(200, tokenless), wantLink: "/"},
		{name: "the token of a session that has ended", query: theToken, ory: reply(401, noSession), wantLink: "/"},
		{name: "the token, and Ory fails", query: theToken, ory: reply(500, ""), wantLink: "/"},
		{name: "no Cookie header", query: theToken, header: http.Header{"Sec-Fetch-Site": {"cross-site"}}, wantAsked: []string{}, wantLink: "/"},
		{name: "all else in the query", query: "a=1%2B1&logout_token=old&ngsw-bypass=&return_to=%26%3A", wantLink: "?a=1%2B1&" + theToken + "&ngsw-bypass=&return_to=%26%3A"},
	} {
		if tt.header == nil {
			tt.header = behindWorker
		}
		tt.run(t)
	}
}

// A prefetch is refused at once, and Ory is not asked. The page's link is the request's own. A header without a value is none.
func TestPrefetch(t *testing.T) {
	for name, h := range prefetches {
		for _, query := range []string{"", theToken, "a=%2B&return_to=http%3A%2F%2Fapp.example"} {
			logoutTest{name: name + query, query: query, header: h, wantAsked: []string{}, wantLink: "?" + query}.run(t)
		}
		bubble(t, name+" of the home page", func(t *testing.T) {
			asked := false
			resp := get(t, newApp(t, func(http.ResponseWriter, *http.Request) { asked = true }), "/", h)
			check(t, "status", resp.Code, http.StatusForbidden)
			check(t, "question to Ory", asked, false)
		})
	}
	logoutTest{name: "query with a colon", query: "return_to=http://app.example", header: prefetches["prefetch"], wantAsked: []string{}, wantLink: "?return_to=http%3A%2F%2Fapp.example"}.run(t)
	logoutTest{name: "no value", header: header("Sec-Purpose: ", "Purpose: "), wantLocation: flowURL}.run(t)
}

// The page's link is relative, so it is right under a sub-path that a proxy or a handler strips, too.
func TestPage(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		app := newApp(t, fakeKratos)
		resp := get(t, app, "/logout", behindWorker)
		checkHeader(t, resp, "Content-Type", "text/html; charset=utf-8")
		checkHeader(t, resp, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'")
		checkHeader(t, resp, "HX-Redirect", "")
		r := newRequest(t.Context(), "/shop/logout?a=b", behindWorker)
		r.Header.Set("HX-Request", "true")
		resp = httptest.NewRecorder()
		http.StripPrefix("/shop", app.routes()).ServeHTTP(resp, r)
		checkPage(t, resp, "?a=b&"+theToken)
		checkHeader(t, resp, "HX-Redirect", "/shop/logout?a=b")
	})
}

// checkPage checks that resp is the page that asks the user, whose Logout leads to link.
func checkPage(t *testing.T, resp *httptest.ResponseRecorder, link string) {
	t.Helper()
	check(t, "status", resp.Code, http.StatusForbidden)
	check(t, "page", html.UnescapeString(resp.Body.String()), pageHead+`<meta name="turbo-visit-control" content="reload">
<title>Logout</title><h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout.
<p><a class="button" href="`+link+`" target="_top">Logout</a> <a href="/" target="_top">Cancel</a>`)
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
	wantErr string // that is logged
}

const signedIn, signedOut = "signed in", "signed out"

// answered returns the error of an answer with status that is no flow.
func answered(status int, why string) string {
	return fmt.Sprintf("no logout flow: Ory answered %d: %s", status, why)
}

var oryAnswers = []oryAnswer{
	{name: "flow", raw: rawJSON(200, flowJSON(flowURL)), want: signedIn},
	{name: "flow of 128 KiB", raw: rawJSON(200, padded(flowJSON(flowURL), 128<<10)), want: signedIn},
	{name: "no session, Kratos v0.10 and newer", raw: rawJSON(401, noSession), want: signedOut},
	{name: "401 by a gateway, HTML", raw: raw(401, "Content-Type: text/html", "<h1>Unauthorized</h1>"), wantErr: answered(401, "undefined response type")},
	{name: "401 by a gateway, JSON", raw: rawJSON(401, `{"message":"SECRET","error":{}}`), wantErr: answered(401, "401 Unauthorized")},
	{name: "401 without a body", raw: raw(401, "Server: gateway", ""), wantErr: answered(401, "401 Unauthorized")},
	{name: "session_inactive, but not 401", raw: rawJSON(403, noSession), wantErr: answered(403, "session_inactive")},
	{name: "bad request", raw: rawJSON(400, `{"error":{"id":"why","reason":"SECRET","message":"SECRET"}}`), wantErr: answered(400, "why")},
	{name: "rate limited", raw: rawJSON(429, `{"error":{"code":429,"reason":"SECRET"}}`), wantErr: answered(429, "429 Too Many Requests")},
	{name: "database is broken", raw: rawJSON(500, `{"error":{"code":500,"message":"SECRET"}}`), wantErr: answered(500, "500 Internal Server Error")},
	{name: "redirect", raw: raw(307, "Location: https://SECRET:SECRET@ory.example:4434/?token=SECRET-TOKEN", ""), wantErr: answered(307, "307 Temporary Redirect")},
	{name: "hangs", hangs: true, waits: true, wantErr: tried("", tooLate)},
	{name: "hangs in the body", raw: rawJSON(200, flowJSON(flowURL))[:150], hangs: true, waits: true, wantErr: answered(200, tooLate)},
	{name: "hangs up", wantErr: tried("", "EOF")},
	{name: "hangs up in the body", raw: rawJSON(200, flowJSON(flowURL))[:150], wantErr: answered(200, "unexpected EOF")},
	{name: "flow of 128 KiB and one byte", raw: rawJSON(200, padded(flowJSON(flowURL), 128<<10+1)), wantErr: answered(200, "http: request body too large")},
	{name: "not HTTP", raw: "SSH-2.0-OpenSSH_9.2\r\n", wantErr: tried("", `net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-OpenSSH_9.2"`)},
	{name: "garbage", raw: rawJSON(200, flowJSON(flowURL)[1:]), wantErr: answered(200, "invalid character ':' after top-level value")},
	{name: "not JSON", raw: raw(200, "Content-Type: text/html", flowJSON(flowURL)), wantErr: answered(200, "undefined response type")},
	{name: "null", raw: rawJSON(200, "null"), wantErr: answered(200, "no logout URL")},
	{name: "empty body", raw: rawJSON(200, ""), wantErr: answered(200, "no logout URL")},
	{name: "no logout_url", raw: rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), wantErr: answered(200, "no value given for required property logout_url")},
	{name: "empty logout_url", raw: rawJSON(200, flowJSON("")), wantErr: answered(200, "no logout URL")},
}

// Whatever Ory answers, each request has an answer in time, and the home page tells the truth. Only a click that fails is
// an error: another site's link that meets a broken Ory is not.
func TestOryAnswers(t *testing.T) {
	for _, tt := range oryAnswers {
		vouched := logoutTest{name: tt.name + ", click", ory: tt.ServeHTTP, wantLocation: "/"}
		notVouched := logoutTest{name: tt.name + ", not vouched for", header: behindWorker, ory: tt.ServeHTTP, wantLink: "/"}
		var wantHomeTook time.Duration
		var wantHomeLog string
		switch tt.want {
		case signedIn:
			vouched.wantLocation = flowURL
			notVouched.wantLink = "?" + theToken
		case "":
			vouched.wantLog = failed(tt.wantErr)
			wantHomeLog = strings.Replace(vouched.wantLog, "logout failed", "session unknown", 1)
		}
		if tt.waits {
			vouched.wantTook = 3 * time.Second
			notVouched.wantTook = 3 * time.Second
			wantHomeTook = 1500 * time.Millisecond
		}
		vouched.run(t)
		notVouched.run(t)
		bubble(t, tt.name+", home page", func(t *testing.T) {
			log := captureLog(t)
			start := time.Now()
			resp := get(t, newApp(t, tt.ServeHTTP), "/", click)
			check(t, "duration", time.Since(start), wantHomeTook)
			checkHome(t, resp, tt.want)
			checkLog(t, log, wantHomeLog)
		})
	}
}

// checkHome checks that a home page says want, has one link, and is not shown in a frame.
func checkHome(t *testing.T, resp *httptest.ResponseRecorder, want string) {
	t.Helper()
	const logoutLink = `<p><a class="button" href="/logout" target="_top">Logout</a>`
	text := map[string]string{
		"":        "<h1>You may be signed in.</h1>\n<p>Ory could not tell. If you clicked Logout, you may still be signed in.\n" + logoutLink,
		signedIn:  "<h1>You are signed in.</h1>\n\n" + logoutLink,
		signedOut: "<h1>You are signed out.</h1>\n\n" + `<p><a class="button" href="http://ory.example/self-service/login/browser" target="_top">Sign in</a>`,
	}[want]
	check(t, "status", resp.Code, http.StatusOK)
	checkContains(t, resp.Body.String(), text+"\n<script>")
	checkHeader(t, resp, "Content-Security-Policy", "frame-ancestors 'none'")
}

func checkContains(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}

// A browser that went away is nobody's fault, whatever it was waiting for. When the app's own patience ends, as in a timeout
// middleware, Ory has failed.
func TestGivenUp(t *testing.T) {
	hangs := oryAnswer{hangs: true}
	hangsInBody := oryAnswer{raw: rawJSON(200, flowJSON(flowURL))[:150], hangs: true}
	hangsWithReturnTo := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "" {
			fakeKratos(w, r)
			return
		}
		hangs.ServeHTTP(w, r)
	}
	for _, tt := range []struct {
		name, path string
		ory        http.HandlerFunc
		byApp      bool // and not by the browser
		wantLog    string
	}{
		{name: "Logout", path: "/logout", ory: hangs.ServeHTTP},
		{name: "Logout, in the middle of the answer", path: "/logout", ory: hangsInBody.ServeHTTP},
		{name: "Logout, at the second question", path: "/logout?" + allowed, ory: hangsWithReturnTo},
		{name: "Logout, by the app", path: "/logout", ory: hangs.ServeHTTP, byApp: true, wantLog: failed(tried("", tooLate))},
		{name: "home page", path: "/", ory: hangs.ServeHTTP},
		{name: "home page, in the middle of the answer", path: "/", ory: hangsInBody.ServeHTTP},
		{name: "home page, by the app", path: "/", ory: hangs.ServeHTTP, byApp: true, wantLog: fmt.Sprintf(`level=ERROR msg="session unknown" err=%q`, tried("", tooLate))},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := newApp(t, tt.ory)
			start := time.Now()
			if tt.byApp {
				http.TimeoutHandler(app.routes(), time.Second, "").ServeHTTP(httptest.NewRecorder(), newRequest(t.Context(), tt.path, click))
			} else {
				leave(t, app, tt.path)
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
			checkHeader(t, get(t, app, "/logout", click), "Location", "/")
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

// What is wrong with the way to Ory is logged once, in words that help, and Ory is not offered HTTP/2.
func TestWrongWayToOry(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(fakeKratos))
	untrusted.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		check(t, "HTTP/2 is offered", slices.Contains(hello.SupportedProtos, "h2"), false)
		return nil, nil
	}}
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // for the handshake that fails
	untrusted.StartTLS()
	defer untrusted.Close()
	for _, tt := range []struct{ name, oryURL, wantErr string }{
		{"nobody listens", "http://127.0.0.1:1", "dial tcp 127.0.0.1:1: "},
		{"https to an http port", strings.Replace(startOry(t, fakeKratos).URL, "http:", "https:", 1), "http: server gave HTTP response to HTTPS client"},
		{"certificate is not trusted", untrusted.URL, "tls: failed to verify certificate: x509: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := &App{ory: newOryClient(tt.oryURL)}
			checkHeader(t, get(t, app, "/logout?"+allowed, click), "Location", "/")
			checkContains(t, log.String(), fmt.Sprintf(` level=ERROR msg="logout failed" err="Get \"%s/self-service/logout/browser\": %s`, tt.oryURL, tt.wantErr))
			check(t, "lines of log", strings.Count(log.String(), "\n"), 1)
		})
	}
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
			atOnce(clients, func() { checkRedirect(t, get(t, app, "/logout", click), flowURL) })
			check(t, fmt.Sprintf("connections after %v without a logout:", tt.idle), opened.Load(), tt.want)
		}
	})
	bubble(t, "kept though a browser goes away", func(t *testing.T) {
		app, opened, _ := start(t)
		atOnce(10, func() { get(t, app, "/logout", click) })
		leave(t, app, "/logout")
		atOnce(9, func() { get(t, app, "/logout", click) })
		check(t, "connections", opened.Load(), 10)
	})
	bubble(t, "dead", func(t *testing.T) {
		app, opened, dead := start(t)
		atOnce(10, func() { get(t, app, "/logout", click) })
		dead.Store(opened.Load())
		for _, want := range []string{"/", flowURL, flowURL} {
			checkRedirect(t, get(t, app, "/logout", click), want)
		}
	})
}

// A dial and a TLS handshake end after 3 seconds each, even if the browser has left before.
func TestConnecting(t *testing.T) {
	bubble(t, "dial", func(t *testing.T) {
		resolver := net.DefaultResolver
		defer func() { net.DefaultResolver = resolver }()
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		start := time.Now()
		_, err := transportOf(&App{ory: newOryClient("")}).DialContext(t.Context(), "tcp", "ory.example:80")
		check(t, "an error", err != nil, true)
		check(t, "duration", time.Since(start), 3*time.Second)
	})
	bubble(t, "TLS handshake", func(t *testing.T) {
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
		{"HEAD", "/logout", `303, Allow "", Cache-Control "no-store"`},
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
		wantEnd     time.Duration // or up to a second more: Go 1.27 takes half a second to close a connection
	}{
		{name: "request without end", sends: get, wantEnd: 10 * time.Second},
		{name: "body that never comes", sends: get + "Content-Length: 1\r\n\r\n", wantAnswer: "HTTP/1.1 404 ", wantEnd: 10 * time.Second},
		{name: "large header", sends: get + "X-Large: " + strings.Repeat("x", 80<<10), wantAnswer: "HTTP/1.1 431 "},
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
			if got := time.Since(start); got < tt.wantEnd || got >= tt.wantEnd+time.Second {
				t.Errorf("got end after %v, want %v", got, tt.wantEnd)
			}
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

// A stop leaves a request under way 10 seconds. To cut it off then is an error.
func TestServe(t *testing.T) {
	for _, tt := range []struct {
		name      string
		took      time.Duration // by the request that is under way
		wantAfter time.Duration
		wantErr   string
	}{
		{name: "in time", took: 10 * time.Second, wantAfter: 10 * time.Second},
		{name: "too late", took: time.Minute, wantAfter: 11 * time.Second, wantErr: "the stop cut off requests that were still under way after 10 seconds: context deadline exceeded"},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			ln := make(memoryListener)
			ctx, stop := context.WithCancel(t.Context())
			go (&http.Client{Transport: &http.Transport{DialContext: ln.dial}}).Get("http://app.example/")
			time.AfterFunc(time.Second, stop)
			start := time.Now()
			err := serve(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(tt.took) }))
			check(t, "error", strings.TrimSuffix(fmt.Sprint(err), "<nil>"), tt.wantErr)
			check(t, "duration", time.Since(start).Round(time.Second), tt.wantAfter)
			time.Sleep(time.Minute) // so that the handler ends
		})
	}
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
	logTo(t, log)
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
		f.Add(answer.raw, answer.hangs, theToken, worker)
	}
	f.Add(rawJSON(200, tokenless), false, "logout_token=", worker)
	f.Add(rawJSON(400, `{"error":{"reason":"SECRET-TOKEN"}}`), false, refused, click)
	f.Add(good+"more than it announced: SECRET-TOKEN", false, "return_to=%0d%0a;&&=", click)
	f.Add(rawJSON(200, costlyJSON(128<<10)), true, "", click)
	f.Add(good, false, theToken+"&"+allowed, otherSite)
	f.Add(good, false, theToken, click+"\r\nService-Worker-Navigation-Preload: true\r\nPurpose: prefetch")
	f.Fuzz(func(t *testing.T, raw string, hangs bool, query, header string) {
		// Nothing that the fuzzer can have put elsewhere. The length stays, for the sake of Content-Length.
		cookie := rand.Text()
		token := rand.Text()[:len(flowToken)]
		header = strings.ReplaceAll(header, "SECRET-COOKIE", cookie)
		query = strings.ReplaceAll(query, flowToken, token)
		raw = strings.ReplaceAll(raw, flowToken, token)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /logout?" + query + " HTTP/1.1\r\n" + header + "\r\n\r\n")))
		if err != nil || strings.Contains(raw, " 101") { // After 101, the connection is no longer HTTP's.
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

			prefetch := r.Header.Get("Purpose")+r.Header.Get("Sec-Purpose") != ""
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
		mayBeLogged := isQuoted(raw, token) || strings.Contains(r.FormValue("return_to"), token)
		if log := log.String(); strings.Contains(log, cookie) || strings.Contains(log, token) && !mayBeLogged {
			t.Errorf("a secret is logged:\n%s", log)
		}
	})
}

// isQuoted reports whether an error may quote token from an answer: what is no HTTP is by net/http, as are the words of the status
// and a Location that is no URL, XML's numbers by package xml, and the error's id by the app.
func isQuoted(raw, token string) bool {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		return true
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err != nil || strings.Contains(resp.Status, token) || regexp.MustCompile(`(?i)"?id|location|xml`).MatchString(raw)
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
	for _, variable := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		os.Unsetenv(variable) // The Ory of the tests is not behind a proxy.
	}
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
	app.routes().ServeHTTP(httptest.NewRecorder(), newRequest(ctx, target, click))
}

func newRequest(ctx context.Context, target string, header http.Header) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	r.Header = header.Clone()
	return r
}

// location returns where a click on Logout leads in the program at appURL, or "" if there is no answer.
func location(appURL string) string {
	req, _ := http.NewRequest("GET", appURL+"/logout", nil)
	req.Header = click
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
	case strings.HasPrefix(returnTo, "http://app.example"), strings.HasPrefix(returnTo, "/"):
		reply(200, flowJSON(returnURL))(w, r)
	case returnTo != "":
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
	buf := new(bytes.Buffer)
	logTo(t, buf)
	return buf
}

// logTo has slog write to w until the test ends. To package log, net/http's client writes what a server sends unasked.
func logTo(t *testing.T, w io.Writer) {
	slog.SetDefault(slog.New(slog.NewTextHandler(w, nil)))
	log.SetOutput(io.Discard)
	t.Cleanup(func() { slog.SetDefault(slog.New(slog.DiscardHandler)) })
}

// checkLog checks that log has the lines of want, but for their times, and no secret.
func checkLog(t *testing.T, log *bytes.Buffer, want string) {
	t.Helper()
	got := regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), "")
	if strings.TrimSpace(got) != strings.TrimSpace(want) || strings.Contains(got, "SECRET") {
		t.Errorf("got log\n%s\nwant\n%s", got, want)
	}
}
