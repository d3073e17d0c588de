package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
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
	"path/filepath"
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
	logoutURL     = "http://ory.example/self-service/logout?token=SECRET-TOKEN&return_to=/%2e%2e/%c3%bc"
)

var user = http.Header{"Cookie": {sessionCookie}}

// What a click on Logout leads to, and what Ory is asked for it.
func TestLogout(t *testing.T) {
	const (
		allowed = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
		refused = "return_to=https%3A%2F%2Fevil.example%2F%3Ftoken%3DSECRET-RETURN"
		warning = `level=WARN msg="return_to left out" return_to=https://evil.example err="status 400: self_service_flow_return_to_forbidden"` + "\n"
	)
	type test struct {
		name         string
		query        string
		cookies      []string
		answer       http.HandlerFunc
		wantAsked    []string // the query of each question
		wantLocation string
		wantLog      string
		wantTook     time.Duration
	}
	session := []string{sessionCookie}
	tests := []test{
		{"session", "", session, kratos, []string{""}, logoutURL, "", 0},
		{"split Cookie header", "", []string{"theme=dark", sessionCookie}, kratos, []string{""}, logoutURL, "", 0},
		{"no session", "", []string{"theme=dark"}, kratos, []string{""}, "/", "", 0},
		{"no Cookie header", "", nil, kratos, nil, "/", "", 0},
		{"empty Cookie header", "", []string{""}, kratos, nil, "/", "", 0},
		{"logout URL that is not ASCII", "", session, reply(200, flowJSON("http://ory.example/é")), []string{""}, "http://ory.example/%c3%a9", "", 0},
		{"allowed return_to", allowed, session, kratos, []string{allowed}, logoutURL, "", 0},
		{"empty return_to", "return_to=", session, kratos, []string{""}, logoutURL, "", 0},
		{"refused return_to", refused, session, kratos, []string{refused, ""}, logoutURL, warning, 0},
		{"return_to that is no URL", "return_to=%25", session, kratos, []string{"return_to=%25", ""}, logoutURL, strings.Replace(warning, "https://evil.example", `""`, 1), 0},
		{"return_to on a long host", "return_to=https%3A%2F%2F" + strings.Repeat("h", 60000), session, kratos,
			[]string{"return_to=https%3A%2F%2F" + strings.Repeat("h", 60000), ""}, logoutURL,
			strings.Replace(warning, "evil.example", strings.Repeat("h", 200-len("https://")), 1), 0},
		{"return_to, nobody signed in", refused, []string{"theme=dark"}, kratos, []string{refused}, "/", "", 0},
		{"return_to, Ory hangs", refused, session, answer{hangs: true}.ServeHTTP, []string{refused}, "/",
			`level=ERROR msg="logout failed" err="context deadline exceeded"`, 3 * time.Second},
		{"refused return_to, then an error", refused, session, byReturnTo(kratos, reply(500, "")), []string{refused, ""}, "/",
			warning + `level=ERROR msg="logout failed" err="status 500: no usable answer"`, 0},
		{"refused return_to after 2 seconds, then Ory hangs", refused, session, byReturnTo(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			kratos(w, r)
		}, answer{hangs: true}.ServeHTTP), []string{refused, ""}, "/",
			warning + `level=ERROR msg="logout failed" err="context deadline exceeded"`, 3 * time.Second},
	}
	for status, body := range map[int]string{200: "null", 302: "", 400: "", 403: "", 404: "", 414: "", 429: "", 431: "", 500: "", 503: ""} {
		tests = append(tests, test{fmt.Sprintf("return_to answered %d %s", status, body), refused, session,
			byReturnTo(reply(status, body), kratos), []string{refused, ""}, logoutURL,
			fmt.Sprintf(`level=WARN msg="return_to left out" return_to=https://evil.example err="status %d: no usable answer"`, status), 0})
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			var asked []string
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				got := fmt.Sprintf("%s %s, Accept: %s, Cookie: %q", r.Method, r.URL.Path, r.Header.Get("Accept"), r.Header["Cookie"])
				want := fmt.Sprintf("GET /self-service/logout/browser, Accept: application/json, Cookie: [%q]", strings.Join(tt.cookies, "; "))
				if got != want {
					t.Errorf("Ory got %s, want %s", got, want)
				}
				asked = append(asked, r.URL.RawQuery)
				tt.answer(w, r)
			})
			start := time.Now()
			resp := get(app, "/logout?"+tt.query, http.Header{"Cookie": tt.cookies})
			if got := time.Since(start); got != tt.wantTook {
				t.Errorf("got an answer after %v, want %v", got, tt.wantTook)
			}
			synctest.Wait() // until Ory knows of the last question, even if it was given up
			if got, want := resp.Code, 303; got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			checkHeader(t, resp, "Location", tt.wantLocation)
			checkHeader(t, resp, "Cache-Control", "no-store")
			if !slices.Equal(asked, tt.wantAsked) {
				t.Errorf("Ory was asked %q, want %q", asked, tt.wantAsked)
			}
			checkLog(t, log, tt.wantLog)
		})
	}
}

// The headers as Chromium, Firefox and WebKit send them, and what nobody sends yet. https://www.w3.org/TR/fetch-metadata/
func TestIsUsersDoing(t *testing.T) {
	type test struct {
		name                   string
		site, mode, dest, user string // Sec-Fetch-…
		other                  string // header
		cookie, query          string // logout_confirm
		want                   bool
	}
	tests := []test{
		{"click", "same-origin", "navigate", "document", "?1", "", "", "", true},
		{"click in WebKit, or a script that sets location", "same-origin", "navigate", "document", "", "", "", "", true},
		{"click on a page of the same site", "same-site", "navigate", "document", "?1", "", "", "", true},
		{"typed URL", "none", "navigate", "document", "?1", "", "", "", true},
		{"plain http, or an old browser", "", "", "", "", "", "", "", true},
		{"no destination", "same-origin", "navigate", "", "", "", "", "", true},
		{"typed URL, Back button or reload in WebKit", "none", "navigate", "document", "", "", "", "", false},
		{"click on another site", "cross-site", "navigate", "document", "?1", "", "", "", false},
		{"site unheard of", "same-planet", "navigate", "document", "?1", "", "", "", false},
		{"service worker in Chromium and WebKit", "same-origin", "navigate", "empty", "", "", "", "", false},
		{"service worker in Firefox, or fetch by htmx", "same-origin", "same-origin", "empty", "", "", "", "", false},
		{"request rebuilt by a service worker, or fetch by Turbo", "same-origin", "cors", "empty", "", "", "", "", false},
		{"navigation preload", "same-origin", "navigate", "document", "", "Service-Worker-Navigation-Preload: true", "", "", false},
		{"navigation preload, without Fetch Metadata", "", "", "", "", "Service-Worker-Navigation-Preload: true", "", "", false},
		{"navigation preload with an empty header", "same-origin", "navigate", "document", "", "Service-Worker-Navigation-Preload: ", "", "", false},
		{"confirmed: service worker in Chromium and WebKit", "same-origin", "navigate", "empty", "", "", "s", "s", true},
		{"confirmed: navigation preload", "same-origin", "navigate", "document", "", "Service-Worker-Navigation-Preload: true", "s", "s", true},
		{"confirmed by another value", "same-origin", "navigate", "empty", "", "", "s", "t", false},
		{"confirmed by nothing", "same-origin", "navigate", "empty", "", "", "", "s", false},
		{"confirmed: another site", "cross-site", "navigate", "document", "?1", "", "s", "s", false},
		{"confirmed: another site through a service worker", "cross-site", "navigate", "empty", "", "", "s", "s", false},
		{"confirmed: Back button in WebKit", "none", "navigate", "document", "", "", "s", "s", false},
		{"confirmed: image", "same-origin", "no-cors", "image", "", "", "s", "s", false},
		{"confirmed: prefetch", "same-origin", "no-cors", "empty", "", "Sec-Purpose: prefetch", "s", "s", false},
	}
	for _, dest := range []string{"iframe", "frame", "object", "embed", "image", "style", "script", "font", "video", "unheard-of"} {
		tests = append(tests, test{dest, "same-origin", "", dest, "", "", "", "", false})
	}
	for _, purpose := range []string{"Sec-Purpose: prefetch", "Sec-Purpose: prefetch;prerender", "Purpose: prefetch", "X-Purpose: preview", "X-Moz: prefetch", "X-Sec-Purpose: prefetch", "Purpose: "} {
		tests = append(tests, test{purpose, "same-origin", "navigate", "document", "?1", purpose, "", "", false})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/logout?logout_confirm="+tt.query, nil)
			for key, value := range map[string]string{"Site": tt.site, "Mode": tt.mode, "Dest": tt.dest, "User": tt.user} {
				if value != "" {
					r.Header.Set("Sec-Fetch-"+key, value)
				}
			}
			if key, value, found := strings.Cut(tt.other, ": "); found {
				r.Header.Set(key, value)
			}
			r.Header.Set("Cookie", sessionCookie+"; logout_confirm="+tt.cookie)
			if got := isUsersDoing(r); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}

// The page that asks signs out with one click, also through a service worker.
func TestAskUser(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		const logout, returnTo = "/logout?a=1%2B1&return_to=http%3A%2F%2Fapp.example%2F%3Fa%26b", "return_to=http%3A%2F%2Fapp.example%2F%3Fa%26b"
		var asked []string
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery)
			kratos(w, r)
		})
		byWorker := func(target, confirm string) *httptest.ResponseRecorder {
			return get(app, target, http.Header{"Sec-Fetch-Dest": {"empty"}, "Cookie": {sessionCookie, "logout_confirm=" + confirm}})
		}

		resp := get(app, logout, http.Header{"Sec-Fetch-Dest": {"empty"}, "Hx-Request": {"true"}, "Cookie": {sessionCookie}})
		link, confirm := confirmation(t, resp)
		if got, want := resp.Code, 403; got != want {
			t.Errorf("got status %d, want %d", got, want)
		}
		for key, want := range map[string]string{
			"Location": "", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "HX-Redirect": logout,
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
			"Set-Cookie":              "logout_confirm=" + confirm + "; Max-Age=600; HttpOnly; SameSite=Lax",
		} {
			checkHeader(t, resp, key, want)
		}
		if want := `<meta name="turbo-visit-control" content="reload">` + "\n<title>Logout</title><h1>Do you want to sign out?</h1>"; !strings.Contains(resp.Body.String(), want) {
			t.Errorf("got a page without %s:\n%s", want, resp.Body)
		}
		if want := strings.Replace(logout, "&", "&logout_confirm="+confirm+"&", 1); link != want {
			t.Errorf("got link %s, want %s", link, want)
		}
		// Another refusal leaves the first page's link good, as in a second tab.
		if link2, confirm2 := confirmation(t, byWorker(logout, confirm)); link2 != link || confirm2 != confirm {
			t.Errorf("got link %s and cookie %s, want %s and %s", link2, confirm2, link, confirm)
		}
		if _, other := confirmation(t, byWorker(logout, "")); len(other) < 26 || other == confirm {
			t.Errorf("got cookie %q for another browser, and %q before", other, confirm)
		}
		checkHeader(t, byWorker(link, ""), "Location", "") // without the cookie
		checkHeader(t, byWorker(link, ""), "HX-Redirect", "")
		checkHeader(t, byWorker(link, confirm), "Location", logoutURL)
		if want := []string{returnTo}; !slices.Equal(asked, want) {
			t.Errorf("Ory was asked %q, want %q", asked, want)
		}
	})
}

// confirmation returns the logout URL that the page that asks links to, and the value of its cookie.
func confirmation(t *testing.T, resp *httptest.ResponseRecorder) (link, confirm string) {
	t.Helper()
	found := regexp.MustCompile(`<a href="([^"]+)" target="_top">Logout</a>`).FindStringSubmatch(resp.Body.String())
	cookies := resp.Result().Cookies()
	if found == nil || len(cookies) != 1 {
		t.Fatalf("got cookies %v and the page\n%s", cookies, resp.Body)
	}
	return "/logout" + html.UnescapeString(found[1]), cookies[0].Value
}

// answer is what Ory, or what stands in its place, may send.
type answer struct {
	name    string
	raw     string // what goes over the connection, which then ends
	hangs   bool   // the connection does not end
	want    string // signedIn, signedOut or unknown
	wantErr string // that is logged, as slog prints it
	waits   bool   // the app waits as long as it may
}

const (
	signedIn  = "You are signed in."
	signedOut = "You are signed out."
	unknown   = "You may be signed in."
)

var answers = []answer{
	{"flow", rawJSON(200, flowJSON(logoutURL)), false, signedIn, "", false},
	{"flow of 128 KiB", rawJSON(200, flowJSON(logoutURL)+strings.Repeat(" ", 128<<10-len(flowJSON(logoutURL)))), false, signedIn, "", false},
	{"no session, Kratos v0.10 and newer", rawJSON(401, noSession), false, signedOut, "", false},
	{"401 by a gateway, HTML", raw(401, "text/html", "<h1>Unauthorized</h1>"), false, unknown, `"status 401: no usable answer"`, false},
	{"401 by a gateway, JSON", rawJSON(401, `{"message":"Unauthorized","error":"no"}`), false, unknown, `"status 401: no usable answer"`, false},
	{"session_inactive, but not 401", rawJSON(403, noSession), false, unknown, `"status 403: No active session was found in this request."`, false},
	{"bad request", rawJSON(400, `{"error":{"reason":"That is wrong.","message":"Bad."}}`), false, unknown, `"status 400: That is wrong."`, false},
	{"rate limited", rawJSON(429, `{"error":{"code":429,"reason":"Too fast."}}`), false, unknown, `"status 429: Too fast."`, false},
	{"database is broken", rawJSON(500, `{"error":{"code":500,"message":"no such table: sessions"}}`), false, unknown, `"status 500: no such table: sessions"`, false},
	{"long reason", rawJSON(500, `{"error":{"reason":"`+strings.Repeat("r", 60000)+`"}}`), false, unknown, `"status 500: ` + strings.Repeat("r", 188) + `"`, false},
	{"redirect", "HTTP/1.1 307 Temporary Redirect\r\nLocation: https://SECRET:SECRET@ory.example:4434/?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n", false, unknown, `"status 307: redirect to https://ory.example:4434"`, false},
	{"relative redirect", "HTTP/1.1 302 Found\r\nLocation: /?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n", false, unknown, `"status 302: redirect to http://ory.example"`, false},
	{"redirect to no URL", "HTTP/1.1 302 Found\r\nLocation: http://%/?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n", false, unknown, `"no usable answer"`, false},
	{"switching protocols", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: SECRET-TOKEN\r\n\r\n", true, unknown, `"status 101: no usable answer"`, false},
	{"hangs", "", true, unknown, `"context deadline exceeded"`, true},
	{"hangs in the body", rawJSON(200, flowJSON(logoutURL))[:150], true, unknown, `"status 200: context deadline exceeded"`, true},
	{"hangs up", "", false, unknown, `EOF`, false},
	{"hangs up in the body", rawJSON(200, flowJSON(logoutURL))[:150], false, unknown, `"status 200: unexpected EOF"`, false},
	{"flow of 128 KiB and one byte", rawJSON(200, flowJSON(logoutURL)+strings.Repeat(" ", 128<<10-len(flowJSON(logoutURL))+1)), false, unknown, `"status 200: no usable answer"`, false},
	{"not HTTP", logoutURL, false, unknown, `"no usable answer"`, false},
	{"bad header", "HTTP/1.1 200 OK\r\nSECRET-TOKEN\r\n\r\n", false, unknown, `"no usable answer"`, false},
	{"garbage", rawJSON(200, flowJSON(logoutURL)[1:]), false, unknown, `"status 200: no usable answer"`, false},
	{"not JSON", raw(200, "text/html", flowJSON(logoutURL)), false, unknown, `"status 200: no usable answer"`, false},
	{"null", rawJSON(200, "null"), false, unknown, `"status 200: no usable answer"`, false},
	{"empty body", rawJSON(200, ""), false, unknown, `"status 200: no usable answer"`, false},
	{"no logout_url", rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), false, unknown, `"status 200: no usable answer"`, false},
	{"relative logout_url", rawJSON(200, flowJSON("/logout?token=SECRET-TOKEN")), false, unknown, `"status 200: no usable answer"`, false},
	{"logout_url without a host", rawJSON(200, flowJSON("http://:80/?token=SECRET-TOKEN")), false, unknown, `"status 200: no usable answer"`, false},
	{"script as logout_url", rawJSON(200, flowJSON("javascript://x/?SECRET-TOKEN")), false, unknown, `"status 200: no usable answer"`, false},
	{"line break in logout_url", rawJSON(200, flowJSON(logoutURL+`\r\nSet-Cookie: a=b`)), false, unknown, `"status 200: no usable answer"`, false},
}

// Whatever Ory answers, a click on Logout has an answer in time, and the home page tells the truth. Each row runs in a
// bubble of testing/synctest, so that the time it takes is exact.
func TestOryAnswers(t *testing.T) {
	for _, tt := range answers {
		for _, page := range []struct {
			path, wantLog string
			limit         time.Duration
		}{{"/logout", "logout failed", 3 * time.Second}, {"/", "session unknown", 1500 * time.Millisecond}} {
			bubble(t, tt.name+", "+page.path, func(t *testing.T) {
				log := captureLog(t)
				start := time.Now()
				resp := get(newApp(t, tt.ServeHTTP), page.path, user)
				if got, want := time.Since(start), map[bool]time.Duration{true: page.limit}[tt.waits]; got != want {
					t.Errorf("got an answer after %v, want %v", got, want)
				}
				if page.path == "/" {
					checkHome(t, resp, tt.want)
				} else {
					checkHeader(t, resp, "Location", map[string]string{signedIn: logoutURL, signedOut: "/", unknown: "/"}[tt.want])
				}
				wantLog := ""
				if tt.want == unknown {
					wantLog = fmt.Sprintf("level=ERROR msg=%q err=%s", page.wantLog, tt.wantErr)
				}
				checkLog(t, log, wantLog)
			})
		}
	}
}

// A browser that went away is nobody's fault. When the app's own patience ends, as in a timeout middleware, Ory has failed.
func TestGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		byBrowser  bool
		wantLog    string
	}{
		{"Logout, by the browser", "/logout?return_to=http%3A%2F%2Fapp.example", true, ""},
		{"Logout, by the app", "/logout", false, `level=ERROR msg="logout failed" err="context deadline exceeded"`},
		{"home page, by the browser", "/", true, ""},
		{"home page, by the app", "/", false, `level=ERROR msg="session unknown" err="context deadline exceeded"`},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if tt.byBrowser {
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
			}
			defer cancel()
			r := httptest.NewRequestWithContext(ctx, "GET", tt.path, nil)
			r.Header = user
			start := time.Now()
			newApp(t, answer{hangs: true}.ServeHTTP).routes().ServeHTTP(httptest.NewRecorder(), r)
			if got, want := time.Since(start), time.Second; got != want {
				t.Errorf("got an answer after %v, want %v", got, want)
			}
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
			app := newApp(t, answer{raw: tt.raw}.ServeHTTP)
			allocated := totalAlloc()
			checkHeader(t, get(app, "/logout", user), "Location", "/")
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
	plain := startOry(t, kratos)
	untrusted := httptest.NewTLSServer(http.HandlerFunc(kratos))
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
			checkHeader(t, get(app, "/logout", user), "Location", "/")
			if got, want := log.String(), ` level=ERROR msg="logout failed" err=`+tt.wantErr; !strings.Contains(got, want) {
				t.Errorf("got log %q, want %q in it", got, want)
			}
		})
	}
}

// The app speaks HTTP/1.1 to an Ory that offers HTTP/2 too.
func TestHTTP1ToOry(t *testing.T) {
	fake := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Proto, "HTTP/1.1"; got != want {
			t.Errorf("Ory was asked by %s, want %s", got, want)
		}
		kratos(w, r)
	}))
	defer fake.Close()
	fake.EnableHTTP2 = true
	fake.StartTLS()
	app := &App{ory: newOryClient(fake.URL)}
	transportOf(app).TLSClientConfig = fake.Client().Transport.(*http.Transport).TLSClientConfig
	transportOf(app).ForceAttemptHTTP2 = true // which a TLSClientConfig would turn off
	checkHeader(t, get(app, "/logout", user), "Location", logoutURL)
}

// The app reaches Ory through the proxy that the environment names.
func TestProxyToOry(t *testing.T) {
	proxy := startOry(t, kratos)
	_, appURL, _ := startProgram(t, "ORY_SDK_URL=http://ory.example", "HTTP_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if got, want := location(appURL), logoutURL; got != want {
		t.Errorf("got Location %q, want %q", got, want)
	}
}

// A connection to Ory is kept for every logout that was under way at once, for 90 seconds. When connections are dead
// without being closed, as behind a router that has forgotten them, one click fails, and not one for each.
func TestConnectionsToOry(t *testing.T) {
	start := func(t *testing.T) (app *App, opened, dead *atomic.Int64) {
		opened, dead = new(atomic.Int64), new(atomic.Int64) // connections
		app = newAppOf(t, &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if opened.Load() == dead.Load() { // No connection has been opened since all died.
					<-r.Context().Done()
				}
				time.Sleep(time.Second) // so that all logouts are under way at once
				kratos(w, r)
			}),
			ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
				opened.Add(1)
				return ctx
			},
		})
		return app, opened, dead
	}
	bubble(t, "kept", func(t *testing.T) {
		const clients = 256
		app, opened, _ := start(t)
		for _, tt := range []struct {
			idle time.Duration
			want int64
		}{{0, clients}, {0, clients}, {90*time.Second - 1, clients}, {90 * time.Second, 2 * clients}} {
			time.Sleep(tt.idle)
			synctest.Wait()
			atOnce(clients, func() { get(app, "/logout", user) })
			if got := opened.Load(); got != tt.want {
				t.Errorf("got %d connections after %v without a logout, want %d", got, tt.idle, tt.want)
			}
		}
	})
	bubble(t, "dead", func(t *testing.T) {
		app, opened, dead := start(t)
		atOnce(10, func() { get(app, "/logout", user) })
		dead.Store(opened.Load())
		for _, want := range []string{"/", logoutURL, logoutURL} {
			checkHeader(t, get(app, "/logout", user), "Location", want)
		}
	})
}

// checkHome checks that a home page says want, has one link, and is neither kept nor shown in a frame.
func checkHome(t *testing.T, resp *httptest.ResponseRecorder, want string) {
	t.Helper()
	text, link := "", `<p><a href="/logout" target="_top">Logout</a>`
	switch want {
	case signedOut:
		link = `<p><a href="http://ory.example/self-service/login/browser" target="_top">Sign in</a>`
	case unknown:
		text = "<p>Ory at http://ory.example could not tell. After a click on Logout you may still be signed in."
	}
	if want := "<h1>" + want + "</h1>\n" + text + "\n" + link + "\n<script>"; resp.Code != 200 || !strings.Contains(resp.Body.String(), want) {
		t.Errorf("got %d and the page\n%s\nwant 200 and\n%s", resp.Code, resp.Body, want)
	}
	checkHeader(t, resp, "Cache-Control", "no-store")
	checkHeader(t, resp, "Content-Security-Policy", "frame-ancestors 'none'")
}

func TestHomeWithoutCookie(t *testing.T) {
	checkHome(t, get(&App{ory: newOryClient("http://ory.example")}, "/", nil), signedOut)
}

func TestRoutes(t *testing.T) {
	app := (&App{ory: newOryClient("http://ory.example")}).routes()
	for _, tt := range []struct {
		method, path            string
		want                    int
		wantAllow, wantLocation string
	}{
		{"GET", "/", 200, "", ""},
		{"HEAD", "/", 200, "", ""},
		{"POST", "/", 405, "GET, HEAD", ""},
		{"GET", "/logout", 303, "", "/"},
		{"HEAD", "/logout", 405, "GET", ""},
		{"POST", "/logout", 405, "GET, HEAD", ""},
		{"GET", "/logout/", 404, "", ""},
	} {
		resp := httptest.NewRecorder()
		app.ServeHTTP(resp, httptest.NewRequest(tt.method, tt.path, nil))
		allow, location := resp.Header().Get("Allow"), resp.Header().Get("Location")
		if resp.Code != tt.want || allow != tt.wantAllow || location != tt.wantLocation {
			t.Errorf("%s %s: got %d, %q, %q, want %d, %q, %q", tt.method, tt.path, resp.Code, allow, location, tt.want, tt.wantAllow, tt.wantLocation)
		}
	}
}

// A client that is slow to send, to read or to leave is cut off, and so is one that sends too much.
func TestGreedyClients(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sends string
		reads bool
		want  time.Duration
	}{
		{"request without end", "GET / HTTP/1.1\r\n", true, 10 * time.Second},
		{"answer that nobody reads", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, 10 * time.Second},
		{"large header", "GET / HTTP/1.1\r\nX-Large: " + strings.Repeat("x", 80<<10), true, 500 * time.Millisecond}, // by net/http
		{"no further request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, 2 * time.Minute},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			closed := make(chan time.Time, 1)
			srv := newServer(http.NotFoundHandler())
			srv.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateClosed {
					closed <- time.Now()
				}
			}
			conn, _ := serveInMemory(t, srv)(t.Context(), "", "")
			if tt.reads {
				go io.Copy(io.Discard, conn)
			}
			start := time.Now()
			io.WriteString(conn, tt.sends)
			if got := (<-closed).Sub(start); got != tt.want {
				t.Errorf("got cut off after %v, want %v", got, tt.want)
			}
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
		if err := serve(ctx, ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) })); err != nil {
			t.Errorf("got %v, want no error", err)
		}
		if got, want := time.Since(start), 11*time.Second; got != want {
			t.Errorf("got an end after %v, want %v", got, want)
		}
		time.Sleep(time.Minute) // so that the handler ends
	})
	ln, _ := net.Listen("tcp", "localhost:0")
	ln.Close()
	if err := serve(t.Context(), ln, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("without a listener: got %v, want %v", err, net.ErrClosed)
	}
}

func TestConfigurationErrors(t *testing.T) {
	if ln, err := net.Listen("tcp", ":3000"); err == nil { // else another program has it
		defer ln.Close()
	}
	for _, tt := range []struct{ name, variable, value, want string }{
		{"default port is taken", "PORT", "", "listen tcp :3000: bind: address already in use"},
		{"port is no number", "PORT", "abc", ""},
		{"Ory without a scheme", "ORY_SDK_URL", "localhost:4000", "set it to Ory's public URL, like http://localhost:4000\n"},
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
			if got, want := cmd.ProcessState.ExitCode(), 1; got != want {
				t.Errorf("got exit code %d, want %d", got, want)
			}
			got, want := string(out), "ory-logout: "+tt.variable+" is not "
			if !strings.HasPrefix(got, want) || !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
				t.Errorf("got output %q, want one line that begins with %q and contains %q", got, want, tt.want)
			}
		})
	}
}

func TestDefaultOry(t *testing.T) {
	_, _, got := startProgram(t, "ORY_SDK_URL=")
	if want := "http://localhost:4000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A signal lets a logout that is under way finish, and no new one begin. A second one ends the program at once.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name         string
		first        os.Signal
		second       bool
		wantLocation string
		wantCode     int // -1 if a signal ended it
	}{
		{"SIGINT", os.Interrupt, false, logoutURL, 0},
		{"SIGTERM", syscall.SIGTERM, false, logoutURL, 0},
		{"second signal", syscall.SIGTERM, true, "", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked, release, ended, answer := make(chan bool), make(chan bool, 1), make(chan bool), make(chan string)
			defer close(release)
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				<-release
				kratos(w, r)
			})
			cmd, appURL, _ := startProgram(t, "ORY_SDK_URL="+fake.URL)
			go func() { answer <- location(appURL) }()
			<-asked
			cmd.Process.Signal(tt.first)
			for _, err := http.Head(appURL); err == nil; _, err = http.Head(appURL) { // until the port is closed
			}
			go func() { cmd.Wait(); close(ended) }()
			for tt.second && cmd.Process.Signal(syscall.SIGTERM) == nil {
				time.Sleep(time.Millisecond)
			}
			release <- true
			if got := <-answer; got != tt.wantLocation {
				t.Errorf("got Location %q, want %q", got, tt.wantLocation)
			}
			<-ended
			if got := cmd.ProcessState.ExitCode(); got != tt.wantCode {
				t.Errorf("got exit code %d, want %d", got, tt.wantCode)
			}
		})
	}
}

// README.md's snippet is a whole program with logout.go.
func TestReadme(t *testing.T) {
	readme, _ := os.ReadFile("README.md")
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	snippet, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("got no Go snippet in README.md")
	}
	main, overlay := filepath.Join(t.TempDir(), "main.go"), filepath.Join(t.TempDir(), "overlay.json")
	replace := fmt.Sprintf(`{"Replace": {"main.go": %q, "logout_test.go": ""}}`, main)
	if err := cmp.Or(os.WriteFile(main, []byte(snippet), 0o600), os.WriteFile(overlay, []byte(replace), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// FuzzLogout checks what must hold whatever Ory and the browser send: another site and a service worker without the page's
// secret never reach Ory, a redirect leads to / or where Ory says, in time and in little memory, and no secret is logged.
func FuzzLogout(f *testing.F) {
	const click = "Cookie: SECRET-COOKIE=SECRET-COOKIE"
	good := rawJSON(200, flowJSON(logoutURL))
	for _, a := range answers {
		f.Add(a.raw, a.hangs, "", click)
	}
	f.Add(rawJSON(400, refusal("https://evil.example")), false, "return_to=https%3A%2F%2Fevil.example", click)
	f.Add(good+"more than it announced: SECRET-TOKEN", false, "return_to=%0d%0a;&&=", click)
	f.Add(rawJSON(200, costlyJSON(128<<10)), true, "", click)
	f.Add(good, false, "logout_confirm=c", click+"; logout_confirm=c\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: empty")
	f.Add(good, false, "logout_confirm=c", click+"; logout_confirm=c\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-User: ?1")
	f.Add(good, false, "", click+"\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\nService-Worker-Navigation-Preload: true\r\nPurpose: prefetch")
	ownWords := regexp.MustCompile(`(?i)reason|message|id|location`) // of Ory, which are logged, token and all if they hold one
	f.Fuzz(func(t *testing.T, raw string, hangs bool, query, header string) {
		// Nothing that the fuzzer can have put elsewhere. The length stays, for the sake of Content-Length.
		cookie, token := rand.Text(), rand.Text()[:len("SECRET-TOKEN")]
		raw, header = strings.ReplaceAll(raw, "SECRET-TOKEN", token), strings.ReplaceAll(header, "SECRET-COOKIE", cookie)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /logout?" + query + " HTTP/1.1\r\n" + header + "\r\n\r\n")))
		if err != nil {
			t.Skip()
		}
		log := captureLog(t)
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				asked++
				answer{raw: raw, hangs: hangs}.ServeHTTP(w, r)
			})
			start, allocated, w := time.Now(), totalAlloc(), httptest.NewRecorder()
			app.routes().ServeHTTP(w, r)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("got an answer after %v", took)
			}
			if got, limit := totalAlloc()-allocated, uint64(64<<20); got > limit {
				t.Errorf("got %d bytes allocated, want at most %d", got, limit)
			}
			byWorker := r.Header.Get("Sec-Fetch-Dest") == "empty" || r.Header["Service-Worker-Navigation-Preload"] != nil
			isRefused := r.Header.Get("Sec-Fetch-Site") == "cross-site" || byWorker && r.FormValue("logout_confirm") == ""
			switch location := w.Header().Get("Location"); {
			case w.Code != 303 && w.Code != 403, isRefused && w.Code != 403, w.Code == 403 && asked > 0:
				t.Errorf("got %d, and Ory asked %d times", w.Code, asked)
			case location != "" && location != "/":
				var flow struct{ Logout_URL string }
				transportOf(app).CloseIdleConnections() // They may be asked, but do not answer twice.
				resp, err := app.ory.GetConfig().HTTPClient.Get("http://ory.example")
				if err == nil {
					err = json.NewDecoder(resp.Body).Decode(&flow)
					resp.Body.Close()
				}
				want := httptest.NewRecorder()
				http.Redirect(want, r, flow.Logout_URL, http.StatusSeeOther)
				if want := want.Header().Get("Location"); err != nil || resp.StatusCode >= 300 || location != want {
					t.Errorf("got Location %q, want %q (%v, %v)", location, want, resp, err)
				}
			}
		})
		if log := log.String(); strings.Contains(log, cookie) || strings.Contains(log, token) && !ownWords.MatchString(raw) {
			t.Errorf("a secret is logged:\n%s", log)
		}
	})
}

// BenchmarkLogout compares the app with a bare reverse proxy, which is what one hop to Ory costs at least, and with Ory's
// sample, in front of the same Ory.
func BenchmarkLogout(b *testing.B) {
	servers := []struct {
		name    string
		handler func(oryURL string) http.Handler
	}{
		{"app", func(oryURL string) http.Handler { return (&App{ory: newOryClient(oryURL)}).routes() }},
		{"proxy", proxyHandler},
		{"sample", sampleHandler},
	}
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} { // of Ory's answers
		for _, clients := range []int{1, 16, 256} {
			for _, server := range servers {
				b.Run(fmt.Sprintf("delay=%v/clients=%d/server=%s", delay, clients, server.name), func(b *testing.B) {
					fake := startOry(b, func(w http.ResponseWriter, r *http.Request) {
						time.Sleep(delay)
						kratos(w, r)
					})
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
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.URL.Path = "/self-service/logout/browser"
			r.Out.Header.Set("Accept", "application/json")
		},
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
		for answers := bufio.NewReader(conn); left.Add(-1) >= 0; {
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
func startProgram(t *testing.T, env ...string) (cmd *exec.Cmd, appURL, oryURL string) {
	t.Helper()
	cmd = program(t, append(env, "PORT=0")...)
	stderr, _ := cmd.StderrPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stderr).ReadString('\n')
	found := regexp.MustCompile(` level=INFO msg=listening url=(http://localhost:\d+) ory=(\S+)\n`).FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("got log %q", line)
	}
	return cmd, found[1], found[2]
}

// get asks app, and returns its answer, a redirect included.
func get(app *App, target string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.Header = header.Clone()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Security-Policy", "default-src 'self'") // of the app that logout.go was copied into
	app.routes().ServeHTTP(w, r)
	return w
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

func checkHeader(t *testing.T, resp *httptest.ResponseRecorder, key, want string) {
	t.Helper()
	if got := resp.Header().Get(key); got != want {
		t.Errorf("got %s %q, want %q", key, got, want)
	}
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

// newApp returns the app in front of an Ory in memory.
func newApp(t *testing.T, answer http.HandlerFunc) *App {
	return newAppOf(t, &http.Server{Handler: answer})
}

func newAppOf(t *testing.T, fake *http.Server) *App {
	app := &App{ory: newOryClient("http://ory.example/")}
	transportOf(app).DialContext = serveInMemory(t, fake)
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

// kratos answers as Kratos does: 401 without a session, 400 for a return_to that it does not allow.
func kratos(w http.ResponseWriter, r *http.Request) {
	switch returnTo := r.FormValue("return_to"); {
	case !strings.Contains(r.Header.Get("Cookie"), sessionCookie):
		reply(401, noSession)(w, r)
	case returnTo != "" && !strings.HasPrefix(returnTo, "http://app.example"):
		reply(400, refusal(returnTo))(w, r)
	default:
		reply(200, flowJSON(logoutURL))(w, r)
	}
}

// byReturnTo returns a handler that answers requests with and without a return_to differently.
func byReturnTo(with, without http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("return_to") != "" {
			with(w, r)
		} else {
			without(w, r)
		}
	}
}

func flowJSON(logoutURL string) string {
	return `{"logout_token":"SECRET-TOKEN","logout_url":"` + logoutURL + `"}`
}

// costlyJSON returns a flow of size bytes that takes many times as much memory to decode.
func costlyJSON(size int) string {
	const head, tail = `{"logout_token":"","logout_url":"","a":[{}`, `]}`
	return head + strings.Repeat(",{}", (size-len(head+tail))/3) + tail
}

const noSession = `{"error":{"id":"session_inactive","code":401,"status":"Unauthorized","reason":"No active session was found in this request.","message":"request does not have a valid authentication session"}}`

// refusal quotes returnTo, as Kratos does.
func refusal(returnTo string) string {
	reason, _ := json.Marshal(fmt.Sprintf("Requested return_to URL %q is not allowed.", returnTo))
	return `{"error":{"id":"self_service_flow_return_to_forbidden","code":400,"status":"Bad Request","reason":` + string(reason) + `,"message":"The request was malformed or contained invalid parameters"}}`
}

func raw(status int, contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body)
}

func rawJSON(status int, body string) string { return raw(status, "application/json", body) }

func (a answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
