package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
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

// Queries, as the app passes them on.
const (
	allowed  = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
	refused  = "return_to=https%3A%2F%2Fuser%3ASECRET-PASSWORD%40evil.example%2F%3Ftoken%3DSECRET-RETURN"
	theToken = "logout_token=" + flowToken
)

// Headers of requests as Chromium, Firefox and WebKit send them, with the session cookie. The app does not read all of them.
// https://www.w3.org/TR/fetch-metadata/
var (
	click        = header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1")
	behindWorker = header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty")
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

// appTest is a request to the app, and what comes of it.
type appTest struct {
	name      string
	path      string // /logout, if empty
	query     string
	header    http.Header // click, if nil
	leaves    bool        // The browser goes away after a second.
	ory       answers
	wantAsked []string // the query of each question to Ory; nil stands for one question without a query
	want      string   // the whole answer
	wantLog   string
	wantTook  time.Duration
}

// answers are what Ory answers to one question after the other. To those that follow, it answers as fakeKratos does.
type answers []http.HandlerFunc

// run runs the test in a bubble of testing/synctest, so that the time it takes is exact.
func (tt appTest) run(t *testing.T) {
	if tt.header == nil {
		tt.header = click
	}
	if tt.wantAsked == nil {
		tt.wantAsked = []string{""}
	}
	bubble(t, tt.name, func(t *testing.T) {
		log := captureLog(t)
		var asked []string
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			got := fmt.Sprint(r.Method, " ", r.URL.Path, ", ", r.Header.Get("Accept"), ", ", r.Header["Cookie"])
			want := fmt.Sprint("GET /self-service/logout/browser, application/json, [", strings.Join(tt.header["Cookie"], "; "), "]")
			check(t, "question to Ory", got, want)
			answer := fakeKratos
			if len(asked) < len(tt.ory) {
				answer = tt.ory[len(asked)]
			}
			asked = append(asked, r.URL.RawQuery)
			answer(w, r)
		})
		ctx := t.Context()
		if tt.leaves {
			ctx = leaving(t)
		}
		var got string
		took, allocated := measure(func() { got = get(ctx, app, cmp.Or(tt.path, "/logout")+"?"+tt.query, tt.header) })
		check(t, "answer", got, tt.want)
		check(t, "duration", took, tt.wantTook)
		check(t, "more than 16 MiB allocated", allocated > 16<<20, false)
		synctest.Wait() // until Ory knows of the last question, even if it was given up
		check(t, "queries to Ory", fmt.Sprintf("%q", asked), fmt.Sprintf("%q", tt.wantAsked))
		checkLog(t, log, tt.wantLog)
	})
}

// A click on Logout signs out. It leads back from Ory to where return_to says, if Ory gives a flow for that in time.
func TestLogout(t *testing.T) {
	slow := after(1700*time.Millisecond, fakeKratos) // too slow for two questions
	noSecondAnswer := leftOut(tried("?"+allowed, tooLate))
	tests := []appTest{
		{name: "split Cookie header", header: http.Header{"Cookie": {"theme=dark", sessionCookie}}, want: redirect(flowURL)},
		{name: "no Cookie header", header: http.Header{}, wantAsked: []string{}, want: redirect("/")},
		{name: "empty Cookie header", header: http.Header{"Cookie": {""}}, wantAsked: []string{}, want: redirect("/")},
		{name: "flow of 128 KiB", ory: answers{reply(200, fmt.Sprintf("%-*s", 128<<10, flowJSON(flowURL)))}, want: redirect(flowURL)},
		{name: "flow without a token", ory: answers{reply(200, tokenless)}, want: redirect("http://ory.example")},
		{name: "logout URL that is not ASCII", ory: answers{reply(200, flowJSON("http://ory.example/é"))}, want: redirect("http://ory.example/%c3%a9")},
		{name: "another token", query: "logout_token=planted", want: redirect(flowURL)},

		{name: "allowed return_to", query: allowed, wantAsked: []string{"", allowed}, want: redirect(returnURL)},
		{name: "relative return_to", query: "return_to=%2Fbye", wantAsked: []string{"", "return_to=%2Fbye"}, want: redirect(returnURL)},
		{name: "empty return_to", query: "return_to=", want: redirect(flowURL)},
		{name: "refused return_to", query: refused, wantAsked: []string{"", refused}, want: redirect(flowURL), wantLog: leftOut(answered(400, "self_service_flow_return_to_forbidden"))},
		{name: "return_to, and nobody signed in", query: refused, header: http.Header{"Cookie": {"theme=dark"}}, want: redirect("/")},
		{name: "return_to, and then the session ends", query: allowed, ory: answers{fakeKratos, reply(401, noSession)}, wantAsked: []string{"", allowed}, want: redirect("/")},
		{name: "return_to, and then Ory fails", query: allowed, ory: answers{fakeKratos, reply(500, "")}, wantAsked: []string{"", allowed}, want: redirect(flowURL), wantLog: leftOut(answered(500, "500 Internal Server Error"))},
		{name: "return_to, and Ory hangs", query: refused, ory: answers{hangs}, want: redirect("/"), wantLog: failed(tried("", tooLate)), wantTook: 3 * time.Second},

		{name: "slow Ory, with the token", query: theToken, header: behindWorker, ory: answers{slow}, want: redirect(flowURL), wantTook: 1700 * time.Millisecond},
		{name: "slow Ory, with return_to", query: allowed, ory: answers{slow, slow}, wantAsked: []string{"", allowed}, want: redirect(flowURL), wantLog: noSecondAnswer, wantTook: 3 * time.Second},
		{name: "slow Ory, with both", query: theToken + "&" + allowed, header: behindWorker, ory: answers{slow, slow}, wantAsked: []string{"", allowed}, want: redirect(flowURL), wantLog: noSecondAnswer, wantTook: 3 * time.Second},
	}
	// Browsers find a host in the first five, and Kratos does not.
	for _, returnTo := range []string{
		`http:\\evil.example`, `http:\/evil.example`, `http:evil.example`, `https:evil.example`, `HTTP:\\evil.example`,
		"javascript:SECRET", "mailto:me", "%", "http://[", " http://app.example", "http://app.example/\x00",
	} {
		tests = append(tests, appTest{name: "return_to " + returnTo, query: "return_to=" + url.QueryEscape(returnTo),
			want: redirect(flowURL), wantLog: leftOut("return_to is no URL, or an opaque one")})
	}
	for _, tt := range tests {
		tt.run(t)
	}
}

// What the browser vouches for signs out at once. All else is asked; the page's link has the token.
func TestVouching(t *testing.T) {
	vouchedFor := map[string]http.Header{
		"click":                              click,
		"click in WebKit, or a script":       header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"click on a page of the same site":   header("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"click on https, behind two proxies": header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: document", "X-Forwarded-Proto: https, https"),
		"no destination":                     header("Sec-Fetch-Site: same-origin"),
		"plain http, or an old browser":      header(),
		"plain http, behind a proxy":         header("X-Forwarded-Proto: http"),
	}
	notVouchedFor := map[string]http.Header{
		"typed URL, its reload, and the way back to it in Chromium": header("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"click on another site, or in a window of an opaque origin": header("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-User: ?1"),
		"another site, and no destination":                          header("Sec-Fetch-Site: cross-site"),
		"site unheard of":                                           header("Sec-Fetch-Site: same-planet", "Sec-Fetch-Dest: document"),
		"header that a proxy has doubled":                           header("Sec-Fetch-Site: same-origin, same-origin", "Sec-Fetch-Dest: document"),
		"https, and no header":                                      header("X-Forwarded-Proto: https"),
		"https behind two proxies, and no header":                   header("X-Forwarded-Proto: https, https"),
		"https, then http, and no site":                             header("X-Forwarded-Proto: https,http", "Sec-Fetch-Dest: document"),
		"service worker in Chromium and WebKit":                     behindWorker,
		"service worker in Firefox, or fetch by htmx":               header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty"),
		"navigation preload":                                        header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Service-Worker-Navigation-Preload: true"),
		"navigation preload with an empty header":                   header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Service-Worker-Navigation-Preload: "),
	}
	for _, dest := range []string{"iframe", "frame", "embed", "object", "image", "unheard-of"} {
		notVouchedFor["destination "+dest] = header("Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: "+dest)
	}
	for name, h := range vouchedFor {
		appTest{name: name, header: h, want: redirect(flowURL)}.run(t)
	}
	for name, h := range notVouchedFor {
		appTest{name: name, header: h, want: page("?" + theToken)}.run(t)
		appTest{name: name + ", with the token", query: theToken, header: h, want: redirect(flowURL)}.run(t)
	}
}

// Where the browser does not vouch, the session's token signs out, and nothing else does. Ory is asked once then, without
// return_to, so that another site cannot tell by the time it takes whether somebody is signed in. Nothing is logged.
func TestToken(t *testing.T) {
	for _, tt := range []appTest{
		{name: "the token and return_to", query: theToken + "&" + allowed, wantAsked: []string{"", allowed}, want: redirect(returnURL)},
		{name: "the token, then another", query: theToken + "&logout_token=planted", want: redirect(flowURL)},
		{name: "another token, then the token", query: "logout_token=planted&" + theToken, want: page("?" + theToken)},
		{name: "another token, and a refused return_to", query: "logout_token=planted&" + refused, want: page("?" + theToken + "&" + refused)},
		{name: "the token's beginning", query: "logout_token=SECRET", want: page("?" + theToken)},
		{name: "more than the token", query: theToken + "S", want: page("?" + theToken)},
		{name: "the token in lower case", query: strings.ToLower(theToken), want: page("?" + theToken)},
		{name: "empty token", query: "logout_token=", want: page("?" + theToken)},
		{name: "empty token, and so is Ory's", query: "logout_token=", ory: answers{reply(200, tokenless)}, want: page("/")},
		{name: "the token of a session that has ended", query: theToken, ory: answers{reply(401, noSession)}, want: page("/")},
		{name: "the token, and Ory fails", query: theToken, ory: answers{reply(500, "")}, want: page("/")},
		{name: "the token, and no Cookie header", query: theToken, header: http.Header{"Sec-Fetch-Site": {"cross-site"}}, wantAsked: []string{}, want: page("/")},
		{name: "all else in the query", query: "a=1%2B1&logout_token=old&ngsw-bypass=&return_to=%26%3A", want: page("?a=1%2B1&" + theToken + "&ngsw-bypass=&return_to=%26%3A")},
	} {
		if tt.header == nil {
			tt.header = behindWorker
		}
		tt.run(t)
	}
}

// A prefetch is refused at once, with the token too, and Ory is not asked. The page's link is the request's own, in which
// html/template would find a scheme if the colon were not encoded. What the browser prefetched elsewhere is left alone: with
// Clear-Site-Data, each hover over Logout would throw it away.
func TestPrefetch(t *testing.T) {
	for name, h := range map[string]http.Header{
		"prefetch":             header("Sec-Purpose: prefetch", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"prerender":            header("Sec-Purpose: prefetch;prerender", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: document"),
		"old Chromium's":       header("Purpose: prefetch"),
		"old Safari's preview": header("X-Purpose: preview"),
		"old Firefox's":        header("X-Moz: prefetch"),
		"Turbo's":              header("X-Sec-Purpose: prefetch", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"),
	} {
		appTest{name: name, query: theToken + "&return_to=http://app.example", header: h, wantAsked: []string{},
			want: strings.Replace(page("?"+theToken+"&return_to=http%3A%2F%2Fapp.example"), clearing, "", 1)}.run(t)
		appTest{name: name + ", home page", path: "/", header: h, wantAsked: []string{}, want: noPrefetch}.run(t)
	}
	appTest{name: "headers without a value", header: header("Sec-Purpose: ", "Purpose: "), want: redirect(flowURL)}.run(t)
}

// An adopter may route /logout under POST as well, or under a sub-path that a handler or a proxy strips, and have headers and
// time limits of the app's own. The page's link and its style work there, too. htmx is sent to the path that the browser
// knows. When the app's patience ends, and not the browser's, Ory has failed.
func TestAdopter(t *testing.T) {
	bubble(t, "POST", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/logout", nil)
		r.Header = click
		resp := httptest.NewRecorder()
		newApp(t, fakeKratos).logoutHandler(resp, r)
		check(t, "Location", resp.Header().Get("Location"), flowURL)
	})
	bubble(t, "sub-path", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/shop/logout?a=b", nil)
		r.Header = header("Sec-Fetch-Dest: empty", "HX-Request: true")
		resp := httptest.NewRecorder()
		resp.Header().Set("Content-Security-Policy", "default-src 'self'")
		resp.Header().Set("Content-Type", "text/plain")
		http.StripPrefix("/shop", newApp(t, fakeKratos).routes()).ServeHTTP(resp, r)
		check(t, "HX-Redirect", resp.Header().Get("HX-Redirect"), "/shop/logout?a=b")
		resp.Header().Del("HX-Redirect")
		check(t, "answer", whole(resp), page("?a=b&"+theToken))
	})
	bubble(t, "time limit", func(t *testing.T) {
		log := captureLog(t)
		r := httptest.NewRequest("GET", "/logout", nil)
		r.Header = click
		http.TimeoutHandler(newApp(t, hangs).routes(), time.Second, "").ServeHTTP(httptest.NewRecorder(), r)
		synctest.Wait() // until the handler has ended, too
		checkLog(t, log, failed(tried("", tooLate)))
	})
}

// The home page says whether the user is signed in.
func TestHome(t *testing.T) {
	for _, tt := range []appTest{
		{name: "session", want: signedIn},
		{name: "session, and a return_to", query: allowed, want: signedIn},
		{name: "flow without a token", ory: answers{reply(200, tokenless)}, want: signedIn},
		{name: "no session", ory: answers{reply(401, noSession)}, want: signedOut},
		{name: "no Cookie header", header: http.Header{}, wantAsked: []string{}, want: signedOut},
	} {
		tt.path = "/"
		tt.run(t)
	}
}

// oryFailures is what Ory, or what stands in its place, may send that is no flow.
var oryFailures = []struct {
	name    string
	raw     string // what goes over the connection
	hangs   bool   // and does not close it
	wantErr string // that is logged
}{
	{name: "flow of 128 KiB and one byte", raw: rawJSON(200, fmt.Sprintf("%-*s", 128<<10+1, flowJSON(flowURL))), wantErr: answered(200, "http: request body too large")},
	{name: "401 by a gateway, HTML", raw: raw(401, "Content-Type: text/html", "<h1>Unauthorized</h1>"), wantErr: answered(401, "undefined response type")},
	{name: "401 by a gateway, JSON", raw: rawJSON(401, `{"message":"SECRET","error":{}}`), wantErr: answered(401, "401 Unauthorized")},
	{name: "401 without a body", raw: raw(401, "Server: gateway", ""), wantErr: answered(401, "401 Unauthorized")},
	{name: "session_inactive, but not 401", raw: rawJSON(403, noSession), wantErr: answered(403, "session_inactive")},
	{name: "bad request", raw: rawJSON(400, `{"error":{"id":"why","reason":"SECRET","message":"SECRET"}}`), wantErr: answered(400, "why")},
	{name: "database is broken", raw: rawJSON(500, `{"error":{"code":500,"message":"SECRET"}}`), wantErr: answered(500, "500 Internal Server Error")},
	{name: "redirect", raw: raw(307, "Location: https://SECRET:SECRET@ory.example:4434/?token=SECRET-TOKEN", ""), wantErr: answered(307, "307 Temporary Redirect")},
	{name: "hangs", hangs: true, wantErr: tried("", tooLate)},
	{name: "hangs in the body", raw: rawFlow[:150], hangs: true, wantErr: answered(200, tooLate)},
	{name: "hangs up", wantErr: tried("", "EOF")},
	{name: "hangs up in the body", raw: rawFlow[:150], wantErr: answered(200, "unexpected EOF")},
	{name: "not HTTP", raw: "SSH-2.0-OpenSSH_9.2\r\n", wantErr: tried("", `net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-OpenSSH_9.2"`)},
	{name: "garbage", raw: rawJSON(200, flowJSON(flowURL)[1:]), wantErr: answered(200, "invalid character ':' after top-level value")},
	{name: "not JSON", raw: raw(200, "Content-Type: text/html", flowJSON(flowURL)), wantErr: answered(200, "undefined response type")},
	{name: "null", raw: rawJSON(200, "null"), wantErr: answered(200, "no logout URL")},
	{name: "no logout_url", raw: rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), wantErr: answered(200, "no value given for required property logout_url")},
	{name: "empty logout_url", raw: rawJSON(200, flowJSON("")), wantErr: answered(200, "no logout URL")},
	{name: "1 MiB of JSON that takes many times its size to decode", raw: rawJSON(200, costlyJSON(1<<20)), wantErr: answered(200, "http: request body too large")},
	{name: "128 KiB of it", raw: rawJSON(200, costlyJSON(128<<10)), wantErr: answered(200, "no logout URL")},
	{name: "header of 1 MiB", raw: "HTTP/1.1 200 OK\r\nX-Large: " + strings.Repeat(" ", 1<<20), wantErr: tried("", "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 131072 bytes; aborted")},
}

// Whatever Ory answers, each request has an answer in time and in little memory, and the home page tells the truth. Only a
// click that fails is an error: another site's link that meets a broken Ory is not.
func TestOryFails(t *testing.T) {
	for _, tt := range oryFailures {
		answer := answers{sends(tt.raw, tt.hangs)}
		vouched := appTest{name: tt.name + ", click", ory: answer, want: redirect("/"), wantLog: failed(tt.wantErr)}
		other := appTest{name: tt.name + ", not vouched for", header: behindWorker, ory: answer, want: page("/")}
		home := appTest{name: tt.name + ", home page", path: "/", ory: answer, want: mayBeSignedIn, wantLog: unknown(tt.wantErr)}
		if tt.hangs {
			vouched.wantTook, other.wantTook, home.wantTook = 3*time.Second, 3*time.Second, 1500*time.Millisecond
		}
		vouched.run(t)
		other.run(t)
		home.run(t)
	}
}

// A browser that has left is no failure, whatever it was waiting for.
func TestBrowserLeaves(t *testing.T) {
	hangsInBody := sends(rawFlow[:150], true)
	for _, tt := range []appTest{
		{name: "Logout", ory: answers{hangs}, want: redirect("/")},
		{name: "Logout, in the middle of the answer", ory: answers{hangsInBody}, want: redirect("/")},
		{name: "Logout, in the second question", query: allowed, ory: answers{fakeKratos, hangs}, wantAsked: []string{"", allowed}, want: redirect(flowURL)},
		{name: "home page", path: "/", ory: answers{hangs}, want: mayBeSignedIn},
		{name: "home page, in the middle of the answer", path: "/", ory: answers{hangsInBody}, want: mayBeSignedIn},
	} {
		tt.leaves = true
		tt.wantTook = time.Second
		tt.run(t)
	}
}

// Where nobody listens, a click logs one line that says where, also with a return_to.
func TestNobodyListens(t *testing.T) {
	log := captureLog(t)
	app := &App{ory: newOryClient("http://127.0.0.1:1")}
	check(t, "answer", get(t.Context(), app, "/logout?"+allowed, click), redirect("/"))
	const why = "dial tcp 127.0.0.1:1: connect: connection refused"
	checkLog(t, log, failed(`Get "http://127.0.0.1:1/self-service/logout/browser": `+why))
}

// The app reaches Ory through the proxy that the environment names.
func TestProxyToOry(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(fakeKratos))
	defer proxy.Close()
	_, appURL := startProgram(t, "ORY_SDK_URL=http://ory.example", "HTTP_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=")
	check(t, "answer", visit(appURL), "303 "+flowURL)
}

// A connection to Ory is kept for every logout that was under way at once, for 90 seconds, though a browser goes away. When
// connections are dead without being closed, as behind a router that has forgotten them, one click fails, and not one for
// each.
func TestConnectionsToOry(t *testing.T) {
	var opened, dead atomic.Int64 // connections
	start := func(t *testing.T) *App {
		opened.Store(0)
		dead.Store(0)
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
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
		return app
	}
	logouts := func(t *testing.T, app *App, n int) {
		synctest.Wait() // until connections are idle, or closed
		atOnce(n, func() { check(t, "answer", get(t.Context(), app, "/logout", click), redirect(flowURL)) })
	}
	bubble(t, "kept", func(t *testing.T) {
		app := start(t)
		logouts(t, app, 128)
		logouts(t, app, 128)
		get(leaving(t), app, "/logout", click) // closes the connection that it has, and no other
		logouts(t, app, 127)
		time.Sleep(90*time.Second - 1)
		logouts(t, app, 127)
		check(t, "connections", opened.Load(), 128)
		time.Sleep(90 * time.Second)
		logouts(t, app, 127)
		check(t, "connections", opened.Load(), 128+127)
	})
	bubble(t, "dead", func(t *testing.T) {
		app := start(t)
		logouts(t, app, 10)
		dead.Store(10)
		check(t, "answer", get(t.Context(), app, "/logout", click), redirect("/"))
		logouts(t, app, 1)
		logouts(t, app, 1)
	})
}

// A dial and a TLS handshake end after 3 seconds each, even if the browser has left before. Ory is not offered HTTP/2.
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
		get(leaving(t), app, "/logout", click)
		hello, _ := io.ReadAll(server) // until the app closes the connection
		check(t, "HTTP/2 is offered", bytes.Contains(hello, []byte("\x02h2\x08http/1.1")), false)
		check(t, "duration", time.Since(start), 3*time.Second)
	})
}

func TestRoutes(t *testing.T) {
	app := &App{ory: newOryClient("http://ory.example")}
	for _, tt := range []struct{ method, path, want string }{
		{"HEAD", "/", `200, Allow "", Cache-Control "no-store"`},
		{"POST", "/", `405, Allow "GET, HEAD", Cache-Control ""`},
		{"HEAD", "/logout", `303, Allow "", Cache-Control "no-store"`},
		{"POST", "/logout", `405, Allow "GET, HEAD", Cache-Control ""`},
		{"GET", "/logout/", `404, Allow "", Cache-Control ""`},
	} {
		resp := httptest.NewRecorder()
		app.routes().ServeHTTP(resp, httptest.NewRequest(tt.method, tt.path, nil))
		h := resp.Header()
		got := fmt.Sprintf("%d, Allow %q, Cache-Control %q", resp.Code, h.Get("Allow"), h.Get("Cache-Control"))
		check(t, tt.method+" "+tt.path+":", got, tt.want)
	}
}

// A client that is slow to send, to read or to leave is cut off, and so is one that sends too much. One that only announces
// a body has an answer before.
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
		{name: "header of 60 KiB", sends: get + "X-Large: " + strings.Repeat("x", 60<<10) + "\r\n\r\n", wantAnswer: "HTTP/1.1 404 ", wantEnd: 11 * time.Minute},
		{name: "header of 80 KiB", sends: get + "X-Large: " + strings.Repeat("x", 80<<10), wantAnswer: "HTTP/1.1 431 "},
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

// A stop leaves a request under way 10 seconds. To cut it off then is an error. What goes wrong while it serves is logged.
func TestServe(t *testing.T) {
	for _, tt := range []struct {
		name      string
		took      time.Duration // by the request that is under way
		wantAfter time.Duration
		wantErr   string
	}{
		{name: "in time", took: 10 * time.Second, wantAfter: 10 * time.Second, wantErr: "<nil>"},
		{name: "too late", took: time.Minute, wantAfter: 11 * time.Second, wantErr: "cutting off requests that are still under way after 10 seconds: context deadline exceeded"},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			ln := make(memoryListener)
			ctx, stop := context.WithCancel(t.Context())
			go (&http.Client{Transport: &http.Transport{DialContext: ln.dial}}).Get("http://app.example/")
			time.AfterFunc(time.Second, stop)
			start := time.Now()
			err := serve(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(tt.took) }))
			check(t, "error", fmt.Sprint(err), tt.wantErr)
			check(t, "duration", time.Since(start).Truncate(time.Second), tt.wantAfter) // Shutdown looks twice a second.
			time.Sleep(time.Minute)                                                     // so that the handler ends
		})
	}
	ln, _ := net.Listen("tcp", "localhost:0")
	ln.Close()
	check(t, "error without a listener", errors.Is(serve(t.Context(), ln, nil), net.ErrClosed), true)
	log := captureLog(t)
	newServer(nil).ErrorLog.Print("http: panic serving")
	checkLog(t, log, `level=ERROR msg="http: panic serving"`)
}

func TestConfigurationErrors(t *testing.T) {
	if ln, err := net.Listen("tcp", ":3000"); err == nil { // else another program has it
		defer ln.Close()
	}
	for _, tt := range []struct{ name, variable, value, want string }{
		{"default port is taken", "PORT", "", "listen tcp :3000: bind: address already in use"},
		{"port is no number", "PORT", "abc", "tcp/abc"},
		{"Ory without a scheme", "ORY_SDK_URL", "localhost:4000", "like http://localhost:4000"},
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
			want := "^ory-logout: " + tt.variable + " is not usable: set it to .*" + regexp.QuoteMeta(tt.want) + ".*\n$"
			if !regexp.MustCompile(want).Match(out) || strings.Contains(string(out), "SECRET") {
				t.Errorf("got output %q, want %q, and no secret", out, want)
			}
		})
	}
}

// A signal lets a logout that is under way finish, and no new one begin. A second one ends the program at once.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name     string
		signal   os.Signal
		twice    bool
		want     string
		wantCode int // -1 if a signal ended it
	}{
		{name: "SIGINT", signal: os.Interrupt, want: "303 " + flowURL},
		{name: "SIGTERM", signal: syscall.SIGTERM, want: "303 " + flowURL},
		{name: "second signal", signal: syscall.SIGTERM, twice: true, want: "no answer", wantCode: -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan bool, 1)
			release := make(chan bool, 1)
			fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked <- true
				<-release
				fakeKratos(w, r)
			}))
			defer fake.Close()
			defer close(release)
			cmd, appURL := startProgram(t, "ORY_SDK_URL="+fake.URL)
			answer := make(chan string, 1)
			go func() { answer <- visit(appURL) }()
			select {
			case <-asked:
			case got := <-answer:
				t.Fatalf("got answer %q, and Ory was not asked", got)
			}
			cmd.Process.Signal(tt.signal)
			var err error
			for err == nil { // The port is still open.
				_, err = http.Head(appURL)
			}
			for tt.twice && len(answer) == 0 { // The program has not ended.
				cmd.Process.Signal(tt.signal)
			}
			release <- true
			check(t, "answer", <-answer, tt.want)
			cmd.Wait()
			check(t, "exit code", cmd.ProcessState.ExitCode(), tt.wantCode)
		})
	}
}

// A signal ends the app cleanly as soon as the log says that it listens, and in front of which Ory. Here it comes while that
// line is written.
func TestEarlySignal(t *testing.T) {
	defer slog.SetDefault(slog.Default())
	self, _ := os.FindProcess(os.Getpid())
	for value, want := range map[string]string{"": "http://localhost:4000", "https://ory.example/": "https://ory.example/"} {
		t.Setenv("ORY_SDK_URL", value)
		t.Setenv("PORT", "0")
		terminate := func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == "ory" {
				check(t, "Ory's URL", a.Value.String(), want)
				self.Signal(syscall.SIGTERM)
			}
			return a
		}
		slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{ReplaceAttr: terminate})))
		check(t, "error", run(), nil)
	}
}

// FuzzLogout checks what must hold whatever Ory and the browser send. Without the flow's token, no prefetch and no request of
// another site or of a service worker is redirected. A redirect leads to / or where Ory says. Each answer comes in time and
// takes little memory, and no secret is logged.
func FuzzLogout(f *testing.F) {
	const user = "Cookie: SECRET-COOKIE=SECRET-COOKIE"
	const worker = user + "\r\nSec-Fetch-Dest: empty"
	for _, tt := range oryFailures {
		if len(tt.raw) < 1<<20 {
			f.Add(tt.raw, tt.hangs, "", user)
		}
	}
	f.Add(rawFlow, false, "", user)
	f.Add(rawFlow, false, theToken, worker)
	f.Add(rawJSON(401, noSession), false, theToken, worker)
	f.Add(rawJSON(200, tokenless), false, "logout_token=", worker)
	f.Add(rawJSON(400, `{"error":{"reason":"SECRET-TOKEN"}}`), false, refused, user)
	f.Add(rawFlow+"more than it announced: SECRET-TOKEN", false, "return_to=%0d%0a;&&=", user)
	f.Add(rawFlow, false, theToken+"&"+allowed, user+"\r\nSec-Fetch-Site: cross-site")
	f.Add(rawFlow, false, theToken, user+"\r\nService-Worker-Navigation-Preload: true\r\nPurpose: prefetch")
	f.Fuzz(func(t *testing.T, raw string, hangs bool, query, header string) {
		// Secrets that the fuzzer cannot have put elsewhere. The length stays, for the sake of Content-Length.
		cookie := rand.Text()
		token := rand.Text()[:len(flowToken)]
		header = strings.ReplaceAll(header, "SECRET-COOKIE", cookie)
		query = strings.ReplaceAll(query, flowToken, token)
		raw = strings.ReplaceAll(raw, flowToken, token)
		request := "GET /logout?" + query + " HTTP/1.1\r\n" + header + "\r\n\r\n"
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
		if err != nil || strings.Contains(raw, " 101") { // After 101, the connection is no longer HTTP's.
			t.Skip()
		}
		log := captureLog(t)
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				sends(raw, hangs)(w, r)
			})
			w := httptest.NewRecorder()
			took, allocated := measure(func() { app.routes().ServeHTTP(w, r) })
			check(t, "more than 3 seconds", took > 3*time.Second, false)
			check(t, "more than 64 MiB allocated", allocated > 64<<20, false)

			prefetch := r.Header.Get("Purpose")+r.Header.Get("Sec-Purpose") != ""
			byWorker := r.Header.Get("Sec-Fetch-Dest") == "empty" || r.Header["Service-Worker-Navigation-Preload"] != nil
			needsToken := r.Header.Get("Sec-Fetch-Site") == "cross-site" || byWorker
			location := w.Header().Get("Location")
			switch {
			case w.Code != 303 && w.Code != 403, prefetch && (w.Code != 403 || asked > 0), needsToken && location == "/":
				t.Errorf("got %d, Location %q, and Ory asked %d times", w.Code, location, asked)
			case w.Code == 303 && location != "/":
				transportOf(app).CloseIdleConnections() // They may be asked, but do not answer twice.
				flow, err := app.logoutFlow(t.Context(), r, "")
				want := httptest.NewRecorder()
				http.Redirect(want, r, flow.LogoutUrl, http.StatusSeeOther)
				hasToken := flow.LogoutToken != "" && flow.LogoutToken == r.FormValue("logout_token")
				if want := want.Header().Get("Location"); err != nil || location != want || needsToken && !hasToken {
					t.Errorf("got Location %q, want %q, with the token %t (%v)", location, want, hasToken, err)
				}
			}
		})
		mayBeLogged := isQuoted(raw, token) || strings.Contains(r.FormValue("return_to"), token)
		if log := log.String(); strings.Contains(log, cookie) || strings.Contains(log, token) && !mayBeLogged {
			t.Errorf("a secret is logged:\n%s", log)
		}
	})
}

// isQuoted reports whether an error may quote token from an answer. net/http quotes what is no HTTP, the status, and a Location
// that is no URL. Package xml quotes what is no number. The app quotes the error's id.
func isQuoted(raw, token string) bool {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil || resp.StatusCode < 200 { // Another answer follows.
		return true
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err != nil || strings.Contains(resp.Status, token) || regexp.MustCompile(`(?i)id|\\u|location|xml`).MatchString(raw)
}

// BenchmarkLogout compares the app with a bare reverse proxy, which is what one hop to Ory costs at least, and with Ory's
// sample, in front of the same Ory.
func BenchmarkLogout(b *testing.B) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} { // of Ory's answers
		for _, clients := range []int{1, 16, 256} {
			for _, server := range []struct {
				name    string
				handler func(oryURL string) http.Handler
				want    string
			}{
				{"app", func(oryURL string) http.Handler { return (&App{ory: newOryClient(oryURL)}).routes() }, "303 " + flowURL},
				{"proxy", func(oryURL string) http.Handler {
					target, _ := url.Parse(oryURL)
					proxy := httputil.NewSingleHostReverseProxy(target)
					proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1 << 20}
					return proxy
				}, "200 "},
				{"sample", sampleHandler, "303 " + flowURL},
			} {
				b.Run(fmt.Sprintf("delay=%v/clients=%d/server=%s", delay, clients, server.name), func(b *testing.B) {
					fake := httptest.NewServer(after(delay, fakeKratos))
					defer fake.Close()
					srv := httptest.NewServer(server.handler(fake.URL))
					defer srv.Close()
					load(b, srv, clients, 2*clients, server.want) // opens the connections to Ory
					b.ResetTimer()
					load(b, srv, clients, b.N, server.want)
				})
			}
		}
	}
}

// load sends n logouts to srv, over as many connections as there are clients, and checks each answer. It does little else, so
// that it is the server that is measured.
func load(b *testing.B, srv *httptest.Server, clients, n int, want string) {
	b.Helper()
	var sent atomic.Int64
	atOnce(clients, func() {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for sent.Add(1) <= int64(n) {
			io.WriteString(conn, "GET /logout HTTP/1.1\r\nHost: localhost\r\nCookie: "+sessionCookie+"\r\n\r\n")
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				b.Error(err)
				return
			}
			check(b, "answer", statusAndLocation(resp), want)
		}
	})
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

// visit clicks Logout in the program at appURL, and returns the status and where it leads to.
func visit(appURL string) string {
	req, _ := http.NewRequest("GET", appURL+"/logout", nil)
	req.Header = click
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "no answer"
	}
	return statusAndLocation(resp)
}

// statusAndLocation returns what its name says, and reads resp to its end, so that its connection can be used again.
func statusAndLocation(resp *http.Response) string {
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location"))
}

// leaving returns the context of a request whose browser goes away after a second.
func leaving(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	return ctx
}

// get asks app, and returns the whole answer.
func get(ctx context.Context, app *App, target string, header http.Header) string {
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	r.Header = header
	resp := httptest.NewRecorder()
	app.routes().ServeHTTP(resp, r)
	return whole(resp)
}

// whole returns the status, the header, which is sorted, and the body of an answer. The body of a redirect is left out.
func whole(resp *httptest.ResponseRecorder) string {
	var header strings.Builder
	resp.Header().Write(&header)
	body := html.UnescapeString(resp.Body.String())
	if resp.Code == http.StatusSeeOther {
		body = ""
	}
	return fmt.Sprintf("%d\n%s\n%s", resp.Code, strings.ReplaceAll(header.String(), "\r", ""), body)
}

// redirect returns the answer that leads to location.
func redirect(location string) string {
	return "303\n" + noStore + clearing + htmlType + "Location: " + location + "\n\n"
}

// page returns the answer that asks the user, on a page whose Logout leads to link.
func page(link string) string {
	return "403\n" + noStore + clearing + pageCSP + htmlType + "\n" +
		pageHead + `<meta name="turbo-visit-control" content="reload">
<title>Logout</title><h1>Do you want to sign out?</h1><p>It is not certain that you clicked Logout.
<p><a class="button" href="` + link + `" target="_top">Logout</a> <a href="/" target="_top">Cancel</a>`
}

// What the home page says, and what all answers are made of.
const (
	signedIn      = homeTop + "<h1>You are signed in.</h1>\n\n" + logoutButton + homeEnd
	signedOut     = homeTop + "<h1>You are signed out.</h1>\n\n" + `<p><a class="button" href="http://ory.example/self-service/login/browser" target="_top">Sign in</a>` + homeEnd
	mayBeSignedIn = homeTop + "<h1>You may be signed in.</h1>\n<p>Ory could not tell. If you clicked Logout, you may still be signed in.\n" + logoutButton + homeEnd
	noPrefetch    = "403\n" + noStore + "Content-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\n\nno prefetch: the page shows the session's state\n"

	homeTop      = "200\n" + noStore + "Content-Security-Policy: frame-ancestors 'none'\n" + htmlType + "\n" + pageHead + "<title>Ory logout</title>\n"
	logoutButton = `<p><a class="button" href="/logout" target="_top">Logout</a>`
	homeEnd      = "\n<script>onpageshow = event => { if (event.persisted) location.reload() }</script>\n"

	noStore  = "Cache-Control: no-store\n"
	clearing = `Clear-Site-Data: "prefetchCache", "prerenderCache"` + "\n"
	pageCSP  = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'\n"
	htmlType = "Content-Type: text/html; charset=utf-8\n"
)

// check checks the value that is called what.
func check[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %s %v, want %v", what, got, want)
	}
}

// measure returns how long f takes, and how many bytes the program allocates meanwhile.
func measure(f func()) (took time.Duration, allocated uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took = time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc
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

// reply returns a handler that gives one answer, in JSON.
func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// after returns a handler that waits before h answers.
func after(wait time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		h(w, r)
	}
}

// sends returns a handler that sends raw over the connection, and then closes it, or hangs until the app does.
func sends(raw string, hangs bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		io.Copy(conn, struct{ io.Reader }{strings.NewReader(raw)}) // in pieces, as the struct hides WriteTo
		if hangs {
			io.Copy(io.Discard, conn)
		}
	}
}

var hangs = sends("", true)

// Bodies of Ory's answers.
const (
	noSession = `{"error":{"id":"session_inactive","code":401,"status":"Unauthorized","reason":"No active session was found in this request."}}`
	tokenless = `{"logout_token":"","logout_url":"http://ory.example"}`
)

func flowJSON(url string) string { return `{"logout_token":"SECRET-TOKEN","logout_url":"` + url + `"}` }

// costlyJSON returns a flow of nearly size bytes that takes many times as much memory to decode.
func costlyJSON(size int) string {
	return `{"logout_token":"","logout_url":"","a":[{}` + strings.Repeat(",{}", size/3-20) + `]}`
}

// raw returns an answer as it goes over the connection. header is one line.
func raw(status int, header, body string) string {
	const format = "HTTP/1.1 %d %s\r\n%s\r\nContent-Length: %d\r\n\r\n%s"
	return fmt.Sprintf(format, status, http.StatusText(status), header, len(body), body)
}

func rawJSON(status int, body string) string {
	return raw(status, "Content-Type: application/json", body)
}

var rawFlow = rawJSON(200, flowJSON(flowURL))

// captureLog returns what the app logs until the test ends. To package log, net/http's client writes what a server sends
// unasked.
func captureLog(t *testing.T) *bytes.Buffer {
	buf := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(buf, nil)))
	log.SetOutput(io.Discard)
	t.Cleanup(func() { slog.SetDefault(slog.New(slog.DiscardHandler)) })
	return buf
}

// checkLog checks that log has the lines of want, but for their times, and no secret.
func checkLog(t *testing.T, log *bytes.Buffer, want string) {
	t.Helper()
	got := regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(log.String(), "")
	if strings.TrimSpace(got) != want || strings.Contains(got, "SECRET") {
		t.Errorf("got log\n%s\nwant\n%s", got, want)
	}
}

// What is logged when Ory gives no flow for a click, none for its return_to, and none for the home page.
func failed(err string) string { return fmt.Sprintf(`level=ERROR msg="logout failed" err=%q`, err) }
func leftOut(err string) string {
	return fmt.Sprintf(`level=WARN msg="return_to left out" err=%q`, err)
}
func unknown(err string) string { return fmt.Sprintf(`level=ERROR msg="session unknown" err=%q`, err) }

// answered returns the error for an answer that is no flow.
func answered(status int, why string) string {
	return fmt.Sprintf("no logout flow: Ory answered %d: %s", status, why)
}

// tried returns the error of net/http's client when a question to Ory, with query, has no answer.
func tried(query, why string) string {
	return fmt.Sprintf(`Get "http://ory.example/self-service/logout/browser%s": %s`, query, why)
}

const tooLate = "context deadline exceeded"
