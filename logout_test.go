package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"math"
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
	"strconv"
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
	logoutURL     = "http://ory.example/self-service/logout?token=SECRET-TOKEN&return_to=/%2e%2e/%c3%bcé"
)

var user = http.Header{"Cookie": {sessionCookie}}

// What a click on Logout leads to, whatever Ory answers. Each row runs in a bubble of testing/synctest, so that the
// time it takes is exact.
func TestLogout(t *testing.T) {
	type test struct {
		name         string
		method       string // GET if empty
		query        string
		header       http.Header
		answer       http.HandlerFunc // kratos if nil
		wantStatus   int
		wantLocation string
		wantAsked    []string // the query of each request to Ory
		wantLog      string
		wantTook     time.Duration
	}
	const (
		allowed = "return_to=http%3A%2F%2Fapp.example%2F%3Fa%3Db%26c%3D%25+%2B%C3%BC"
		refused = "return_to=https%3A%2F%2Fevil.example%2F%3Ftoken%3DSECRET-RETURN"
		warning = `level=WARN msg="return_to refused" status=400 id=self_service_flow_return_to_forbidden host=evil.example` + "\n"
	)
	tests := []test{
		{name: "session", header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}},
		{name: "split Cookie header", header: http.Header{"Cookie": {"theme=dark", sessionCookie}}, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}},
		{name: "no Cookie header", query: allowed, wantStatus: 303, wantLocation: "/"},
		{name: "empty Cookie header", header: http.Header{"Cookie": {""}}, wantStatus: 303, wantLocation: "/"},
		{name: "no session", header: http.Header{"Cookie": {"theme=dark"}}, wantStatus: 303, wantLocation: "/", wantAsked: []string{""},
			wantLog: `level=INFO msg="no session"`},
		{name: "HEAD", method: "HEAD", header: user, wantStatus: 405},
		{name: "confirmation that is empty", query: "logout_confirm=", header: http.Header{"Cookie": {sessionCookie + "; logout_confirm="}, "Sec-Fetch-Site": {"cross-site"}}, wantStatus: 403},
		{name: "prefetch by an older browser", header: http.Header{"Cookie": {sessionCookie}, "Purpose": {"prefetch"}}, wantStatus: 403},
		{name: "prefetch by an older Firefox", header: http.Header{"Cookie": {sessionCookie}, "X-Moz": {"prefetch"}}, wantStatus: 403},

		{name: "allowed return_to", query: allowed, header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{allowed}},
		{name: "empty return_to", query: "return_to=", header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{""}},
		{name: "refused return_to", query: refused, header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{refused, ""}, wantLog: warning},
		{name: "refused return_to, then an error", query: refused, header: user, wantStatus: 303, wantLocation: "/", wantAsked: []string{refused, ""},
			answer:  byReturnTo(kratos, reply(500, "", "")),
			wantLog: warning + `level=ERROR msg="logout failed" status=500 reason="no usable answer"`},
		{name: "refused return_to after 2 seconds, then Ory hangs", query: refused, header: user, wantStatus: 303, wantLocation: "/", wantAsked: []string{refused, ""},
			answer: byReturnTo(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(2 * time.Second)
				kratos(w, r)
			}, notFlow{hangs: true}.ServeHTTP),
			wantLog: warning + `level=ERROR msg="logout failed" status=0 reason="context deadline exceeded"`, wantTook: 3 * time.Second},
		{name: "return_to without a session", query: refused, header: user, wantStatus: 303, wantLocation: "/", wantAsked: []string{refused},
			answer: reply(401, "", ""), wantLog: `level=INFO msg="no session"`},
		{name: "return_to that is no URL", query: "return_to=%25", header: user, wantStatus: 303, wantLocation: logoutURL, wantAsked: []string{"return_to=%25", ""},
			wantLog: strings.Replace(warning, "host=evil.example", `host=""`, 1)},
		{name: "return_to with a long host", query: "return_to=" + url.QueryEscape("https://"+strings.Repeat("h", 60000)), header: user, wantStatus: 303, wantLocation: logoutURL,
			wantAsked: []string{"return_to=" + url.QueryEscape("https://"+strings.Repeat("h", 60000)), ""},
			wantLog:   strings.Replace(warning, "evil.example", strings.Repeat("h", 200), 1)},
		{name: "return_to refused with a long id", query: refused, header: user, wantStatus: 303, wantLocation: logoutURL,
			wantAsked: []string{refused, ""},
			answer:    byReturnTo(reply(400, "application/json", `{"error":{"id":"`+strings.Repeat("i", 60000)+`"}}`), kratos),
			wantLog:   `level=WARN msg="return_to refused" status=400 id=` + strings.Repeat("i", 200) + ` host=evil.example`},
	}
	for _, status := range []int{400, 403, 404, 414, 431} {
		tests = append(tests, test{name: fmt.Sprintf("return_to answered %d", status), query: refused, header: user, wantStatus: 303, wantLocation: logoutURL,
			wantAsked: []string{refused, ""},
			answer:    byReturnTo(reply(status, "text/html", "no"), kratos),
			wantLog:   fmt.Sprintf(`level=WARN msg="return_to refused" status=%d id="" host=evil.example`, status)})
	}
	for _, status := range []int{302, 429, 500, 503} {
		tests = append(tests, test{name: fmt.Sprintf("return_to answered %d", status), query: refused, header: user, wantStatus: 303, wantLocation: "/",
			wantAsked: []string{refused}, answer: reply(status, "text/html", "no"),
			wantLog: fmt.Sprintf(`level=ERROR msg="logout failed" status=%d reason="no usable answer"`, status)})
	}
	for _, bad := range notFlows {
		tests = append(tests, test{name: bad.name, header: user, answer: bad.ServeHTTP, wantStatus: 303, wantLocation: "/", wantAsked: []string{""},
			wantLog: bad.wantLog("logout failed"), wantTook: bad.wantTook(3 * time.Second)})
	}

	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			var asked []string
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.RawQuery)
				if got, want := r.Header["Cookie"], []string{strings.Join(tt.header["Cookie"], "; ")}; !slices.Equal(got, want) {
					t.Errorf("Ory got Cookie: %q, want %q", got, want)
				}
				answer := tt.answer
				if answer == nil {
					answer = kratos
				}
				answer(w, r)
			})
			start := time.Now()
			resp := get(app, tt.method, "/logout?"+tt.query, tt.header)
			if got := time.Since(start); got != tt.wantTook {
				t.Errorf("got an answer after %v, want %v", got, tt.wantTook)
			}
			synctest.Wait() // until Ory is done too, that of a request which was given up
			if resp.Code != tt.wantStatus {
				t.Errorf("got status %d, want %d", resp.Code, tt.wantStatus)
			}
			checkHeader(t, resp, "Location", tt.wantLocation)
			checkHeader(t, resp, "Cache-Control", "no-store")
			checkHeader(t, resp, "Allow", map[int]string{405: "GET"}[tt.wantStatus])
			if !slices.Equal(asked, tt.wantAsked) {
				t.Errorf("Ory was asked %q, want %q", asked, tt.wantAsked)
			}
			log.check(t, tt.wantLog)
		})
	}
}

// navigation is a request for /logout as a browser sends it.
type navigation struct {
	name             string
	site, mode, dest string // Sec-Fetch-…
	upgrade          string // Upgrade-Insecure-Requests
	referer          string
	preload          string // Service-Worker-Navigation-Preload
	purpose          string // Sec-Purpose
	want             bool   // it is the user's own doing
}

// As Chromium, Firefox and WebKit tell it; but for the unheard-of, all was seen. https://www.w3.org/TR/fetch-metadata/
var navigations = []navigation{
	{name: "click", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", referer: "http://app.example/account", want: true},
	{name: "click in an app that forbids Referers", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", want: true},
	{name: "typed URL", site: "none", mode: "navigate", dest: "document", upgrade: "1", want: true},
	{name: "click on a same-site page", site: "same-site", mode: "navigate", dest: "document", upgrade: "1", referer: "http://accounts.example/", want: true},
	{name: "plain http", upgrade: "1", referer: "https://evil.example/", want: true},
	{name: "no destination", site: "same-origin", want: true},
	{name: "no site", dest: "document", want: true},
	{name: "click on another site", site: "cross-site", mode: "navigate", dest: "document", upgrade: "1", referer: "https://evil.example/"},
	{name: "site unheard of", site: "same-planet", mode: "navigate", dest: "document", upgrade: "1", referer: "http://app.example/account"},

	{name: "Chromium's service worker, click", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "1", referer: "http://app.example/account", want: true},
	{name: "Chromium's service worker, typed URL", site: "none", mode: "navigate", dest: "empty", upgrade: "1", want: true},
	{name: "Chromium's service worker, another site", site: "cross-site", mode: "navigate", dest: "empty", upgrade: "1", referer: "https://evil.example/"},
	{name: "Chromium's service worker, click in an app that forbids Referers", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "1", want: true},
	{name: "WebKit's service worker, click", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "1", referer: "http://app.example/account", want: true},
	{name: "WebKit's service worker, another site", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "1", referer: "https://evil.example/"},
	{name: "WebKit's service worker, typed URL or another site without a Referer", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "1", referer: "http://app.example/sw.js"},
	{name: "Firefox's service worker, click", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://app.example/account", want: true},
	{name: "Firefox's service worker, another port", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://app.example:8080/", want: true},
	{name: "Firefox's service worker, typed URL", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1"},
	{name: "Firefox's service worker, another site", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "https://evil.example/"},
	{name: "Firefox's service worker, a site that begins alike", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://app.example.evil.example/"},
	{name: "Firefox's service worker, no URL", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://app.example/%"},
	{name: "Firefox's service worker, click on a host in capitals", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://APP.example/", want: true},
	{name: "worker that rebuilds the request", site: "same-origin", mode: "same-origin", dest: "empty", upgrade: "1", referer: "http://app.example/sw.js"},
	{name: "worker that copies the header", site: "same-origin", mode: "cors", dest: "empty", upgrade: "1", referer: "http://app.example/sw.js"},
	{name: "worker that makes a new request", site: "same-origin", mode: "cors", dest: "empty", referer: "http://app.example/sw.js"},
	{name: "Firefox's navigation preload, click", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", referer: "http://app.example/account", preload: "true", want: true},
	{name: "navigation preload, typed URL", site: "none", mode: "navigate", dest: "document", upgrade: "1", preload: "true", want: true},
	{name: "Firefox's navigation preload, another site", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", referer: "https://evil.example/", preload: "true"},
	{name: "Firefox's navigation preload, another site without a Referer", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", preload: "true"},

	{name: "fetch by Turbo", site: "same-origin", mode: "cors", dest: "empty", referer: "http://app.example/account"},
	{name: "fetch by htmx", site: "same-origin", mode: "same-origin", dest: "empty", referer: "http://app.example/account"},
	{name: "fetch that does not ask for an upgrade", site: "same-origin", mode: "navigate", dest: "empty", upgrade: "0", referer: "http://app.example/account"},
	{name: "link rel=prefetch", site: "same-origin", mode: "no-cors", dest: "empty", referer: "http://app.example/account", purpose: "prefetch"},
	{name: "prefetch by speculation rules", site: "same-origin", mode: "navigate", dest: "document", upgrade: "1", referer: "http://app.example/account", purpose: "prefetch"},
	{name: "prerender", site: "none", mode: "navigate", dest: "document", upgrade: "1", purpose: "prefetch;prerender"},
	{name: "iframe", site: "same-origin", mode: "navigate", dest: "iframe", upgrade: "1", referer: "http://app.example/account"},
}

func (n navigation) header() http.Header {
	h := user.Clone()
	for key, value := range map[string]string{
		"Sec-Fetch-Site": n.site, "Sec-Fetch-Mode": n.mode, "Sec-Fetch-Dest": n.dest,
		"Upgrade-Insecure-Requests": n.upgrade, "Referer": n.referer,
		"Service-Worker-Navigation-Preload": n.preload, "Sec-Purpose": n.purpose,
	} {
		if value != "" {
			h.Set(key, value)
		}
	}
	return h
}

// A click on Logout signs out, however the app's scripts pass it on. What is not the user's own doing does not.
func TestLogoutIsTheUsersDoing(t *testing.T) {
	tests := slices.Clone(navigations)
	for _, dest := range []string{"image", "style", "script", "font", "frame", "object", "embed", "video", "unheard-of"} {
		tests = append(tests, navigation{name: dest, site: "same-origin", mode: "no-cors", dest: dest})
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			var asked []string
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.URL.RawQuery)
				kratos(w, r)
			})
			resp := get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Security-Policy", "default-src 'self'") // the app's own
				app.ServeHTTP(w, r)
			}), "GET", "/logout?return_to=http%3A%2F%2Fapp.example%2F%3Fa%26b", tt.header())

			checkHeader(t, resp, "Cache-Control", "no-store")
			if tt.want {
				checkHeader(t, resp, "Location", logoutURL)
				return
			}
			if got, want := resp.Code, 403; got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			if asked != nil {
				t.Errorf("Ory was asked %q", asked)
			}
			checkHeader(t, resp, "Location", "")
			checkHeader(t, resp, "Content-Type", "text/html; charset=utf-8")
			// In another site's frame, the page's link would be the user's own doing.
			if got, want := resp.Header()["Content-Security-Policy"], []string{"default-src 'self'", "frame-ancestors 'none'"}; !slices.Equal(got, want) {
				t.Errorf("got Content-Security-Policy %q, want %q", got, want)
			}
			// A click there signs out, whatever a service worker makes of it. A prefetch does not.
			link := regexp.MustCompile(`<a href="([^"]+)" target="_top" referrerpolicy="same-origin">Logout</a>`).FindStringSubmatch(resp.Body.String())
			cookies := resp.Result().Cookies()
			if link == nil || len(cookies) != 1 {
				t.Fatalf("got cookies %v and the page\n%s", cookies, resp.Body)
			}
			if c := cookies[0]; !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 600 || c.Path != "" {
				t.Errorf("got cookie %v", c)
			}
			h := tt.header()
			target := "/logout" + html.UnescapeString(link[1])
			if got, want := get(app, "GET", target, h).Code, 403; got != want {
				t.Errorf("without the cookie: got status %d, want %d", got, want)
			}
			h.Add("Cookie", cookies[0].Name+"="+cookies[0].Value)
			resp = get(app, "GET", target, h)
			if tt.purpose != "" {
				if got, want := resp.Code, 403; got != want {
					t.Errorf("prefetch of the page's link: got status %d, want %d", got, want)
				}
				return
			}
			checkHeader(t, resp, "Location", logoutURL)
			if want := []string{"return_to=http%3A%2F%2Fapp.example%2F%3Fa%26b"}; !slices.Equal(asked, want) {
				t.Errorf("Ory was asked %q, want %q", asked, want)
			}
		})
	}
}

// Only the browser can go away. When the app's own patience ends first, as in a timeout middleware, it is Ory that failed.
func TestLogoutGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name    string
		giveUp  func(context.Context) (context.Context, context.CancelFunc)
		wantLog string
	}{
		{"by the browser", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, `level=INFO msg="the browser went away"`},
		{"by the app", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, `level=ERROR msg="logout failed" status=0 reason="context deadline exceeded"`},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			ctx, cancel := tt.giveUp(t.Context())
			defer cancel()
			app := newApp(t, notFlow{hangs: true}.ServeHTTP)
			start := time.Now()
			get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				app.ServeHTTP(w, r.WithContext(ctx))
			}), "GET", "/logout", user)
			if got, want := time.Since(start), time.Second; got != want {
				t.Errorf("got an answer after %v, want %v", got, want)
			}
			log.check(t, tt.wantLog)
		})
	}
}

// However much Ory sends, a request takes little memory.
func TestLargeAnswers(t *testing.T) {
	const large = 100 << 20
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	io.CopyN(zip, spaces{}, large)
	zip.Close()
	for _, tt := range []struct {
		name, header string
		body         func() io.Reader
	}{
		{"100 MB", fmt.Sprintf("Content-Length: %d\r\n", large), func() io.Reader { return io.LimitReader(spaces{}, large) }},
		{"no end", "", func() io.Reader { return io.LimitReader(spaces{}, 3*large) }}, // in case the app never hangs up
		{"100 MB, compressed", "Content-Encoding: gzip\r\n", func() io.Reader { return bytes.NewReader(zipped.Bytes()) }},
		{"header without end", "X-Large: ", func() io.Reader { return io.LimitReader(spaces{}, large) }},
	} {
		for _, path := range []string{"/logout", "/"} {
			bubble(t, tt.name+", "+path, func(t *testing.T) {
				captureLog(t)
				app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
					conn, _, _ := http.NewResponseController(w).Hijack()
					defer conn.Close()
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"+tt.header)
					if !strings.HasSuffix(tt.header, ": ") {
						io.WriteString(conn, "\r\n")
					}
					io.Copy(conn, tt.body())
				})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				get(app, "GET", path, user)
				runtime.ReadMemStats(&after)
				if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(16<<20); got > limit {
					t.Errorf("got %d bytes allocated, want at most %d", got, limit)
				}
			})
		}
	}
}

// What is wrong with the way to Ory is logged in words that help.
func TestWrongWayToOry(t *testing.T) {
	closed := startOry(t, kratos)
	closed.Close()
	plain := startOry(t, kratos)
	untrusted := newOry(t, kratos)
	untrusted.StartTLS()
	for _, tt := range []struct{ name, oryURL, wantReason string }{
		{"nobody listens", closed.URL, "dial tcp "},
		{"https to an http port", strings.Replace(plain.URL, "http:", "https:", 1), "http: server gave HTTP response to HTTPS client"},
		{"certificate is not trusted", untrusted.URL, "tls: failed to verify certificate: x509: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := &App{ory: newOryClient(tt.oryURL)}
			checkHeader(t, get(app.routes(), "GET", "/logout", user), "Location", "/")
			if got, want := log.String(), `level=ERROR msg="logout failed" status=0 reason="`+tt.wantReason; !strings.HasPrefix(got, want) {
				t.Errorf("got log %q, want it to begin with %q", got, want)
			}
		})
	}
}

// The app speaks HTTP/1.1 to an Ory that offers HTTP/2 too.
func TestHTTP1ToOry(t *testing.T) {
	fake := newOry(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Proto, "HTTP/1.1"; got != want {
			t.Errorf("Ory was asked by %s, want %s", got, want)
		}
		kratos(w, r)
	})
	fake.EnableHTTP2 = true
	fake.StartTLS()
	app := &App{ory: newOryClient(fake.URL)}
	roots := x509.NewCertPool()
	roots.AddCert(fake.Certificate())
	transportOf(app).TLSClientConfig = &tls.Config{RootCAs: roots}
	transportOf(app).ForceAttemptHTTP2 = true // a TLSClientConfig or DialContext turns HTTP/2 off by itself
	checkHeader(t, get(app.routes(), "GET", "/logout", user), "Location", logoutURL)
}

// The app reaches Ory through the proxy that the environment names.
func TestProxyToOry(t *testing.T) {
	proxy := startOry(t, func(w http.ResponseWriter, r *http.Request) {
		if got, want := r.Host, "ory.example"; got != want {
			t.Errorf("the proxy was asked for %s, want %s", got, want)
		}
		kratos(w, r)
	})
	_, appURL, _ := startProgram(t, "http://ory.example", "HTTP_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=")
	if got, want := location(t, appURL), logoutURL; got != want {
		t.Errorf("got Location %q, want %q", got, want)
	}
}

// A connection to Ory is kept for every logout that was under way at once, for 90 seconds.
func TestConnectionsToOry(t *testing.T) {
	const clients = 256
	bubble(t, "", func(t *testing.T) {
		app := &App{ory: newOryClient("http://ory.example")}
		routes, conns := app.routes(), 0
		dial := serveInMemory(t, &http.Server{Handler: oryHandler(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second) // so that all are under way at once
			kratos(w, r)
		})})
		var mu sync.Mutex
		transportOf(app).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			conns++
			return dial(ctx, network, addr)
		}
		t.Cleanup(transportOf(app).CloseIdleConnections)
		logouts := func() {
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() { get(routes, "GET", "/logout", user) })
			}
			wg.Wait()
			synctest.Wait() // until all connections are back in the pool
		}
		for _, tt := range []struct {
			idle time.Duration
			want int
		}{{0, clients}, {0, clients}, {90*time.Second - 1, clients}, {90 * time.Second, 2 * clients}} {
			time.Sleep(tt.idle)
			synctest.Wait()
			logouts()
			if conns != tt.want {
				t.Errorf("got %d connections after %v without a logout, want %d", conns, tt.idle, tt.want)
			}
		}
	})
}

// Connections that are dead without being closed, as behind a router that has forgotten them, fail one click, not one each.
func TestDeadConnectionsToOry(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		app := &App{ory: newOryClient("http://ory.example")}
		dial := serveInMemory(t, &http.Server{Handler: oryHandler(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second) // so that all are under way at once
			kratos(w, r)
		})})
		dead := false
		transportOf(app).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if dead {
				return conn, err // a new one
			}
			return &mortalConn{conn, &dead}, err
		}
		t.Cleanup(transportOf(app).CloseIdleConnections)
		captureLog(t)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { get(app.routes(), "GET", "/logout", user) })
		}
		wg.Wait()
		dead = true
		for _, want := range []string{"/", logoutURL, logoutURL} {
			checkHeader(t, get(app.routes(), "GET", "/logout", user), "Location", want)
		}
	})
}

// A TLS handshake without end goes on when the browser goes away, but not for more than 10 seconds.
func TestTLSHandshakeWithOry(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		app := &App{ory: newOryClient("https://ory.example")}
		ended := make(chan time.Duration, 1)
		transportOf(app).DialContext = func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			start := time.Now()
			go func() {
				io.Copy(io.Discard, server)
				ended <- time.Since(start)
			}()
			return client, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, _, err := app.ory.FrontendAPI.ToSession(ctx).Execute(); err == nil {
			t.Error("got no error")
		}
		if got, want := <-ended, 10*time.Second; got != want {
			t.Errorf("got an end after %v, want %v", got, want)
		}
	})
}

// mortalConn is a connection that sends nothing any more once it is dead.
type mortalConn struct {
	net.Conn
	dead *bool
}

func (c *mortalConn) Write(p []byte) (int, error) {
	if *c.dead {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// The home page tells the truth about the session.
func TestHome(t *testing.T) {
	const signedIn, signedOut, unknown = "<h1>You are signed in.</h1>", "<h1>You are signed out.</h1>", "<h1>You may be signed in.</h1>"
	type test struct {
		name     string
		header   http.Header
		answer   http.HandlerFunc
		want     string
		wantLog  string
		wantTook time.Duration
	}
	const session = `{"id":"1","active":true,"identity":{"id":"2","schema_id":"","schema_url":"","traits":{}}}`
	tests := []test{
		{name: "no cookie", want: signedOut},
		{name: "no session", header: user, answer: reply(401, "application/json", noSession), want: signedOut},
		{name: "session", header: user, answer: reply(200, "application/json", session), want: signedIn},
		{name: "split Cookie header", header: http.Header{"Cookie": {"theme=dark", sessionCookie}}, answer: reply(200, "application/json", session), want: signedIn},
		{name: "second factor missing", header: user, answer: reply(403, "application/json", `{"error":{"reason":"Second factor missing."}}`), want: unknown,
			wantLog: `level=ERROR msg="session unknown" status=403 reason="Second factor missing."`},
		{name: "XHTML, which client-go takes for a session", header: user, answer: reply(200, "application/xhtml+xml", `<html></html>`), want: unknown,
			wantLog: `level=ERROR msg="session unknown" status=200 reason="no usable answer"`},
	}
	for _, bad := range notFlows {
		tests = append(tests, test{bad.name, user, bad.ServeHTTP, unknown, bad.wantLog("session unknown"), bad.wantTook(1500 * time.Millisecond)})
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			log := captureLog(t)
			app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
				if got, want := r.URL.Path, "/sessions/whoami"; got != want {
					t.Errorf("Ory was asked %s, want %s", got, want)
				}
				if got, want := r.Header["Cookie"], []string{strings.Join(tt.header["Cookie"], "; ")}; !slices.Equal(got, want) {
					t.Errorf("Ory got Cookie: %q, want %q", got, want)
				}
				tt.answer(w, r)
			})
			start := time.Now()
			resp := get(app, "GET", "/", tt.header)
			if got := time.Since(start); got != tt.wantTook {
				t.Errorf("got an answer after %v, want %v", got, tt.wantTook)
			}
			if got, want := resp.Code, 200; got != want {
				t.Errorf("got status %d, want %d", got, want)
			}
			checkHeader(t, resp, "Cache-Control", "no-store")
			wants := []string{tt.want, `<a href="/logout" target="_top">Logout</a>`}
			switch tt.want {
			case signedOut:
				wants[1] = `<a href="http://ory.example/self-service/login/browser" target="_top">Sign in</a>`
			case unknown:
				wants = append(wants, "Ory at http://ory.example could not be asked. After a click on Logout you may still be signed in.")
			}
			page := resp.Body.String()
			for _, want := range wants {
				if !strings.Contains(page, want) {
					t.Errorf("got a page without %q:\n%s", want, page)
				}
			}
			if strings.Count(page, "<a ") != 1 {
				t.Errorf("got a page with more than one link:\n%s", page)
			}
			log.check(t, tt.wantLog)
		})
	}
}

func TestRoutes(t *testing.T) {
	app := (&App{ory: newOryClient("http://ory.example")}).routes()
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/", 200},
		{"HEAD", "/", 200},
		{"POST", "/", 405},
		{"GET", "/logout", 303},
		{"HEAD", "/logout", 405},
		{"POST", "/logout", 405},
		{"OPTIONS", "/logout", 405},
		{"GET", "/logout/", 404},
		{"GET", "/index.html", 404},
	} {
		resp := get(app, tt.method, tt.path, nil)
		if resp.Code != tt.want {
			t.Errorf("%s %s: got status %d, want %d", tt.method, tt.path, resp.Code, tt.want)
		}
		if allow := resp.Header().Get("Allow"); (allow == "") != (tt.want != 405) {
			t.Errorf("%s %s: got Allow %q", tt.method, tt.path, allow)
		}
	}
}

func TestServer(t *testing.T) {
	log := captureLog(t)
	srv := newServer(http.NotFoundHandler())
	got := []time.Duration{srv.ReadHeaderTimeout, srv.ReadTimeout, srv.WriteTimeout, srv.IdleTimeout}
	if want := []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second, 2 * time.Minute}; !slices.Equal(got, want) {
		t.Errorf("got timeouts %v, want %v", got, want)
	}
	if srv.Handler == nil {
		t.Error("got no Handler")
	}
	srv.ErrorLog.Print("http: panic serving")
	log.check(t, `level=ERROR msg="http: panic serving"`)
}

// A stop lets the requests under way finish, for 10 seconds.
func TestServe(t *testing.T) {
	for _, tt := range []struct {
		name         string
		takes, limit time.Duration
		wantAnswer   bool
	}{
		{"logout under way", 10 * time.Second, 10 * time.Second, true}, // 9 seconds after the stop
		{"too long", time.Minute, 11 * time.Second, false},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			ln := make(memoryListener)
			ctx, stop := context.WithCancel(t.Context())
			client := &http.Client{Transport: &http.Transport{DialContext: ln.dial, DisableKeepAlives: true}}
			var answered atomic.Bool
			go func() {
				_, err := client.Get("http://app.example/")
				answered.Store(err == nil)
			}()
			time.AfterFunc(time.Second, stop)
			start := time.Now()
			if err := serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(tt.takes) })}); err != nil {
				t.Errorf("got %v, want no error", err)
			}
			if got := time.Since(start); got < tt.limit || got > tt.limit+900*time.Millisecond { // Shutdown polls
				t.Errorf("got an end after %v, want %v", got, tt.limit)
			}
			synctest.Wait()
			if answered.Load() != tt.wantAnswer {
				t.Errorf("got an answer: %t, want %t", answered.Load(), tt.wantAnswer)
			}
			time.Sleep(tt.takes) // so that the handler ends
		})
	}
	ln, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := serve(t.Context(), ln, &http.Server{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("without a listener: got %v, want %v", err, net.ErrClosed)
	}
}

func TestConfigurationErrors(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, takenPort, _ := net.SplitHostPort(taken.Addr().String())
	if ln, err := net.Listen("tcp", ":3000"); err == nil { // else another program has it
		defer ln.Close()
	}
	for _, tt := range []struct{ name, variable, value, want string }{
		{"default port is taken", "PORT", "", "listen tcp :3000: "},
		{"port is taken", "PORT", takenPort, "address already in use"},
		{"port is no number", "PORT", "abc", ""},
		{"port is too large", "PORT", "65536", ""},
		{"port is negative", "PORT", "-1", ""},
		{"port is an address", "PORT", "localhost:3000", ""},
		{"Ory without a scheme", "ORY_SDK_URL", "localhost:4000", "set it to Ory's public URL, like http://localhost:4000\n"},
		{"Ory without a host", "ORY_SDK_URL", "http://:4000", ""},
		{"Ory is a path", "ORY_SDK_URL", "/ory", ""},
		{"Ory by another protocol", "ORY_SDK_URL", "ftp://localhost:4000", ""},
		{"Ory is no URL", "ORY_SDK_URL", "http://local host", ""},
		{"Ory with a space at its end", "ORY_SDK_URL", "http://localhost:4000/ ", ""},
		{"Ory with a query", "ORY_SDK_URL", "http://localhost:4000/?a=b", ""},
		{"Ory with an empty query", "ORY_SDK_URL", "http://localhost:4000?", ""},
		{"Ory with a fragment", "ORY_SDK_URL", "http://localhost:4000/#a", ""},
		{"Ory with an empty fragment", "ORY_SDK_URL", "http://localhost:4000#", ""},
		{"Ory with a password", "ORY_SDK_URL", "http://user:SECRET@localhost:4000", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := program("PORT=0", tt.variable+"="+tt.value)
			defer time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }).Stop() // if it does not end by itself
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			if got, want := cmd.ProcessState.ExitCode(), 1; got != want {
				t.Errorf("got exit code %d (%v), want %d", got, err, want)
			}
			got, want := stderr.String(), "ory-logout: "+tt.variable+" is not "
			if !strings.HasPrefix(got, want) || !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 || strings.Contains(got, "SECRET") {
				t.Errorf("got stderr %q, want one line that begins with %q and contains %q", got, want, tt.want)
			}
		})
	}
}

func TestDefaultOry(t *testing.T) {
	_, _, log := startProgram(t, "")
	if got, want := log.String(), " ory=http://localhost:4000\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got log %q, want it to end with %q", got, want)
	}
}

// A signal lets a logout that is under way finish, and no new one begin. A second one ends the program at once.
func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  os.Signal
		second bool
	}{{"SIGINT", os.Interrupt, false}, {"SIGTERM", syscall.SIGTERM, false}, {"second signal", syscall.SIGTERM, true}} {
		t.Run(tt.name, func(t *testing.T) {
			asked, released := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			defer release() // if the test fails before
			fake := startOry(t, func(w http.ResponseWriter, r *http.Request) {
				close(asked)
				<-released
				kratos(w, r)
			})
			cmd, appURL, _ := startProgram(t, fake.URL)
			answer := make(chan string)
			go func() { answer <- location(t, appURL) }()
			<-asked
			cmd.Process.Signal(tt.first)
			waitFor(t, "the port to close", func() bool {
				conn, err := net.Dial("tcp", strings.TrimPrefix(appURL, "http://"))
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
			ended := make(chan struct{})
			go func() {
				cmd.Wait()
				close(ended)
			}()
			wantLocation, wantCode := logoutURL, 0
			if tt.second {
				wantLocation, wantCode = "", -1 // ended by the signal
				waitFor(t, "the end", func() bool { return cmd.Process.Signal(syscall.SIGTERM) != nil })
			}
			release()
			if got := <-answer; got != wantLocation {
				t.Errorf("got Location %q, want %q", got, wantLocation)
			}
			<-ended
			if got := cmd.ProcessState.ExitCode(); got != wantCode {
				t.Errorf("got exit code %d, want %d", got, wantCode)
			}
		})
	}
}

// README.md's snippet is a whole program with logout.go, and vet has nothing to say of it.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	snippet, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("got no Go snippet in README.md")
	}
	dir := t.TempDir()
	main, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	writeFile(t, main, []byte(snippet))
	writeFile(t, overlay, fmt.Appendf(nil, `{"Replace": {"main.go": %q, "logout_test.go": ""}}`, main))
	if out, err := exec.Command("go", "vet", "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// FuzzLogout checks that, whatever Ory and the browser send, the answer is one of three and in time, and that the log
// holds no secret.
func FuzzLogout(f *testing.F) {
	add := func(raw string, endless bool, cookie, query string, n navigation) {
		f.Add(raw, endless, cookie, query, n.site, n.mode, n.dest, n.upgrade, n.referer, n.preload, n.purpose)
	}
	good := rawJSON(200, flowJSON(logoutURL))
	for _, n := range navigations {
		add(good, false, "a=b", "return_to=%0d%0a;&&=", n)
	}
	for _, bad := range notFlows {
		add(bad.raw, bad.hangs, "a=b", "", navigation{})
	}
	for _, status := range []int{400, 401, 403, 414, 429, 500} {
		add(rawJSON(status, refusal("https://evil.example")), false, "a=b", "return_to=https%3A%2F%2Fevil.example", navigation{})
	}
	add(good, false, "", "", navigation{})
	add(good, false, "logout_confirm=c", "logout_confirm=c", navigation{site: "cross-site"})
	add(good+"more than it announced: SECRET-TOKEN", false, "a=b", "", navigation{})
	add("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"+flowJSON(logoutURL), true, "a=b", "", navigation{}) // endless

	f.Fuzz(func(t *testing.T, raw string, endless bool, cookie, query, site, mode, dest, upgrade, referer, preload, purpose string) {
		// Nothing that the fuzzer can have put elsewhere. The length stays, for the sake of Content-Length.
		secret, token := rand.Text(), rand.Text()[:len("SECRET-TOKEN")]
		raw = strings.ReplaceAll(raw, "SECRET-TOKEN", token)
		log := captureLog(t)

		synctest.Test(t, func(t *testing.T) {
			asked := 0
			app := &App{ory: newOryClient("http://ory.example")}
			client := app.ory.GetConfig().HTTPClient
			defer client.CloseIdleConnections()
			transportOf(app).DialContext = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go func() {
					defer server.Close()
					if _, err := http.ReadRequest(bufio.NewReader(server)); err != nil {
						return
					}
					asked++
					io.WriteString(server, raw)
					if endless {
						io.CopyN(server, spaces{}, 2*maxOryAnswer)
						io.Copy(io.Discard, server) // hangs until the app gives up
					}
				}()
				return client, nil
			}

			h := navigation{"", site, mode, dest, upgrade, referer, preload, purpose, false}.header()
			h.Del("Cookie")
			if cookie != "" {
				h.Set("Cookie", "ory_session="+secret+"; "+cookie)
			}
			start := time.Now()
			confirmed := false
			w := get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.RawQuery = query
				c, err := r.Cookie("logout_confirm")
				confirmed = err == nil && c.Value != "" && c.Value == r.FormValue("logout_confirm")
				app.routes().ServeHTTP(w, r)
			}), "GET", "/logout", h)
			if took := time.Since(start); took > oryTimeout {
				t.Errorf("got an answer after %v", took)
			}

			location := w.Header().Get("Location")
			from, err := url.Parse(referer)
			isOwnPage := err == nil && strings.EqualFold(from.Hostname(), "app.example") && !strings.HasSuffix(from.Path, ".js")
			isTold := site != "same-origin" || preload == "" && (dest != "empty" || mode == "navigate" && referer == "")
			usersDoing := purpose == "" && (confirmed || slices.Contains([]string{"", "none", "same-origin", "same-site"}, site) &&
				(dest == "" || dest == "document" || dest == "empty" && upgrade == "1") && (isTold || isOwnPage))
			switch {
			case !usersDoing:
				if w.Code != http.StatusForbidden || location != "" || asked > 0 {
					t.Errorf("got %d to %q, and Ory asked %d times, want 403", w.Code, location, asked)
				}
			case w.Code != http.StatusSeeOther:
				t.Errorf("got %d, want 303", w.Code)
			case location != "/":
				// What net/http makes of Ory's answer, as the app's client does.
				resp, err := client.Get("http://ory.example")
				if err != nil {
					t.Fatalf("got Location %q for no answer: %v", location, err)
				}
				defer resp.Body.Close()
				var flow struct {
					LogoutURL string `json:"logout_url"`
				}
				if err := json.NewDecoder(resp.Body).Decode(&flow); err != nil || resp.StatusCode >= 300 || location != flow.LogoutURL {
					t.Errorf("got Location %q, want %q (%d, %v)", location, flow.LogoutURL, resp.StatusCode, err)
				}
			}
			for key, values := range w.Header() {
				if strings.ContainsAny(key+strings.Join(values, ""), "\r\n") {
					t.Errorf("got a line break in %s: %q", key, values)
				}
			}
			// Ory's own reason and id are logged, token and all if they should hold one.
			ownWords := regexp.MustCompile(`(?i)reason|id`).MatchString(raw)
			if log := log.String(); strings.Contains(log, secret) || strings.Contains(log, token) && !ownWords {
				t.Errorf("a secret is logged:\n%s", log)
			}
		})
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
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		http.Redirect(w, r, flow.LogoutUrl, http.StatusSeeOther)
	})
}

// proxyHandler hands every request on to Ory: the least that one hop to Ory costs.
func proxyHandler(oryURL string) http.Handler {
	target, err := url.Parse(oryURL + "/self-service/logout/browser")
	if err != nil {
		panic(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, math.MaxInt
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = target
			r.Out.Header.Set("Accept", "application/json")
		},
	}
}

// BenchmarkLogout compares the app with a bare reverse proxy and with Ory's sample, in front of the same Ory. It runs
// the three in turn, several times, and reports the ratios of their medians: app/proxy and app/sample of requests per
// second. conns/1000 are the connections that Ory had to accept, allocs/op those of the whole process.
func BenchmarkLogout(b *testing.B) {
	for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
		for _, clients := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("delay=%v/clients=%d", delay, clients), func(b *testing.B) {
				benchmarkLogout(b, delay, clients)
			})
		}
	}
}

func benchmarkLogout(b *testing.B, delay time.Duration, clients int) {
	const rounds = 7
	fake := newOry(b, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		kratos(w, r)
	})
	var conns atomic.Int64 // accepted so far
	fake.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	fake.Start()
	type contestant struct {
		name, addr string
		want       int // status
		rates      []float64
		connsPerOp []float64
		allocs     []float64
	}
	contestants := []*contestant{{name: "app", want: 303}, {name: "proxy", want: 200}, {name: "sample", want: 303}}
	for i, handler := range []http.Handler{
		(&App{ory: newOryClient(fake.URL)}).routes(), proxyHandler(fake.URL), sampleHandler(fake.URL),
	} {
		contestants[i].addr = serveTCP(b, newServer(handler)).Listener.Addr().String()
	}
	n := max(b.N, 20*clients)
	run := func(c *contestant, n int) {
		load(b, c.addr, clients, n, func(resp *http.Response) error {
			if resp.StatusCode != c.want || resp.Header.Get("Location") == "/" {
				return fmt.Errorf("%s: got %d to %q", c.name, resp.StatusCode, resp.Header.Get("Location"))
			}
			return nil
		})
	}
	for _, c := range contestants {
		run(c, 2*clients) // opens the connections
	}
	b.ResetTimer()
	for range rounds {
		for _, c := range contestants {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			connsBefore, start := conns.Load(), time.Now()
			run(c, n)
			c.rates = append(c.rates, float64(n)/time.Since(start).Seconds())
			c.connsPerOp = append(c.connsPerOp, float64(conns.Load()-connsBefore)/float64(n))
			runtime.ReadMemStats(&after)
			c.allocs = append(c.allocs, float64(after.Mallocs-before.Mallocs)/float64(n))
		}
	}
	app, proxy, sample := contestants[0], contestants[1], contestants[2]
	b.ReportMetric(0, "ns/op") // of all three together
	b.ReportMetric(median(app.rates)/median(proxy.rates), "app/proxy")
	b.ReportMetric(median(app.rates)/median(sample.rates), "app/sample")
	for _, c := range contestants {
		b.ReportMetric(median(c.rates), c.name+"-req/s")
		b.ReportMetric(median(c.allocs), c.name+"-allocs/op")
		b.ReportMetric(1000*median(c.connsPerOp), c.name+"-conns/1000")
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// BenchmarkSoak fails if memory or goroutines grow with the logouts, a fifth of which fails in one of the ways of
// notFlows. For a verdict that counts: go test -run '^$' -bench Soak -benchtime 200000x
func BenchmarkSoak(b *testing.B) {
	const clients = 256
	logTo(io.Discard)
	b.Cleanup(func() { logTo(os.Stderr) })

	var count atomic.Int64
	var hang atomic.Bool
	fake := startOry(b, func(w http.ResponseWriter, r *http.Request) {
		answer := kratos
		if n := int(count.Add(1)); n%5 == 0 {
			if bad := notFlows[n/5%len(notFlows)]; !bad.hangs || hang.Load() {
				answer = bad.ServeHTTP
			}
		}
		answer(w, r)
	})
	app := &App{ory: newOryClient(fake.URL)}
	srv := serveTCP(b, newServer(app.routes()))

	goroutines := runtime.NumGoroutine()
	run := func(n int) (heap uint64) {
		var signedOut atomic.Int64
		load(b, srv.Listener.Addr().String(), clients, n, func(resp *http.Response) error {
			switch location := resp.Header.Get("Location"); {
			case resp.StatusCode != 303 || location != logoutURL && location != "/":
				return fmt.Errorf("got %d to %q", resp.StatusCode, location)
			case location == logoutURL:
				signedOut.Add(1)
			}
			return nil
		})
		if got, want := signedOut.Load(), int64(n/5*4-clients); got < want && !hang.Load() {
			b.Errorf("got %d logout URLs for %d logouts, want at least %d", got, n, want)
		}
		app.ory.GetConfig().HTTPClient.CloseIdleConnections()
		waitFor(b, fmt.Sprintf("%d goroutines to be %d", runtime.NumGoroutine(), goroutines), func() bool {
			return runtime.NumGoroutine() <= goroutines
		})
		runtime.GC()
		runtime.GC() // empties the pools
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	warm := run(max(b.N/20, clients))
	// Ory hangs in few logouts, as each takes three seconds; and first, so that a timer that outlives its request
	// shows after the rest.
	hang.Store(true)
	run(b.N / 20)
	hang.Store(false)
	heap := run(b.N)
	if b.N >= 10000 && heap > warm*12/10 {
		b.Errorf("got a live heap of %d bytes after %d logouts, %d before", heap, b.N, warm)
	}
	b.ReportMetric(float64(heap)/float64(warm), "heap-growth")
}

// load sends n logouts to a server at addr, over as many connections as there are clients, and passes the answers to
// check. It does little else, so that it is the server that is measured.
func load(tb testing.TB, addr string, clients, n int, check func(*http.Response) error) {
	const request = "GET /logout HTTP/1.1\r\nHost: localhost\r\nCookie: " + sessionCookie + "\r\n\r\n"
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				tb.Error(err)
				return
			}
			defer conn.Close()
			for answers := bufio.NewReader(conn); left.Add(-1) >= 0; {
				io.WriteString(conn, request)
				resp, err := http.ReadResponse(answers, nil)
				if err != nil {
					tb.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err := check(resp); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestMain runs the program itself, in place of its tests, for the tests that start it.
func TestMain(m *testing.M) {
	if os.Getenv("ORY_LOGOUT_TEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program returns a command that runs the app's main.
func program(env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "ORY_LOGOUT_TEST_MAIN=1")...)
	return cmd
}

// startProgram starts the app's main on a free port.
func startProgram(t *testing.T, oryURL string, env ...string) (cmd *exec.Cmd, appURL string, log *syncBuffer) {
	t.Helper()
	cmd = program(append(env, "PORT=0", "ORY_SDK_URL="+oryURL)...)
	log = &syncBuffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	listening := regexp.MustCompile(`^level=INFO msg=listening url=(http://localhost:\d+) `)
	waitFor(t, "the program to listen", func() bool { return listening.MatchString(log.String()) })
	return cmd, listening.FindStringSubmatch(log.String())[1], log
}

// get asks app, and returns its answer, a redirect included.
func get(app http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(cmp.Or(method, "GET"), "http://app.example:3000"+target, nil)
	r.Header = header.Clone()
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	return w
}

func checkHeader(t *testing.T, resp *httptest.ResponseRecorder, key, want string) {
	t.Helper()
	if got := resp.Header().Get(key); got != want {
		t.Errorf("got %s %q, want %q", key, got, want)
	}
}

// location returns where a click on Logout leads in the program at appURL, or "" if there is no answer.
func location(t *testing.T, appURL string) string {
	t.Helper()
	req, err := http.NewRequest("GET", appURL+"/logout", nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	req.Header.Set("Cookie", sessionCookie)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get("Location")
}

// bubble runs a test in a bubble of testing/synctest.
func bubble(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// oryHandler gives answer as an Ory that fails the test when it is asked what the app may not ask.
func oryHandler(t testing.TB, answer http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/self-service/logout/browser" && r.URL.Path != "/sessions/whoami" {
			t.Errorf("Ory got %s %s", r.Method, r.URL.Path)
		}
		if got, want := r.Header.Get("Accept"), "application/json"; got != want {
			t.Errorf("Ory got Accept: %s, want %s", got, want)
		}
		answer(w, r)
	})
}

// newApp returns the app in front of an Ory in memory.
func newApp(t *testing.T, answer http.HandlerFunc) http.Handler {
	app := &App{ory: newOryClient("http://ory.example/")}
	transportOf(app).DialContext = serveInMemory(t, &http.Server{Handler: oryHandler(t, answer)})
	t.Cleanup(transportOf(app).CloseIdleConnections)
	return app.routes()
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

// newOry returns an Ory on the network, to be started. Its clients may be wrong on purpose.
func newOry(t testing.TB, answer http.HandlerFunc) *httptest.Server {
	fake := httptest.NewUnstartedServer(oryHandler(t, answer))
	fake.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(fake.Close)
	return fake
}

func startOry(t testing.TB, answer http.HandlerFunc) *httptest.Server {
	fake := newOry(t, answer)
	fake.Start()
	return fake
}

// serveTCP starts srv on a free port of the loopback, until the test ends.
func serveTCP(t testing.TB, srv *http.Server) *httptest.Server {
	started := httptest.NewUnstartedServer(nil)
	started.Config = srv
	started.Start()
	t.Cleanup(started.Close)
	return started
}

// reply returns a handler that gives one answer.
func reply(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// kratos answers as Kratos does: 401 without a session, 400 for a return_to that it does not allow.
func kratos(w http.ResponseWriter, r *http.Request) {
	answer := reply(200, "application/json", flowJSON(logoutURL))
	if !strings.Contains(r.Header.Get("Cookie"), sessionCookie) {
		answer = reply(401, "application/json", noSession)
	} else if returnTo := r.FormValue("return_to"); returnTo != "" && !strings.HasPrefix(returnTo, "http://app.example") {
		answer = reply(400, "application/json", refusal(returnTo))
	}
	answer(w, r)
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

const noSession = `{"error":{"id":"session_inactive","code":401,"status":"Unauthorized","reason":"No active session was found in this request.","message":"request does not have a valid authentication session"}}`

// refusal quotes returnTo, as Kratos does.
func refusal(returnTo string) string {
	reason, _ := json.Marshal(fmt.Sprintf("Requested return_to URL %q is not allowed.", returnTo))
	return `{"error":{"id":"self_service_flow_return_to_forbidden","code":400,"status":"Bad Request","reason":` + string(reason) + `,"message":"The request was malformed or contained invalid parameters"}}`
}

// notFlow is an answer of Ory, or of what stands in its place, that is no logout URL.
type notFlow struct {
	name       string
	raw        string // what goes over the connection, which then ends
	hangs      bool   // the connection does not end
	wantStatus int    // that is logged; 0 if there is none
	wantReason string // that is logged; "no usable answer" if empty
}

var notFlows = []notFlow{
	{name: "bad request", raw: rawJSON(400, `{"error":{"reason":"That is wrong."}}`), wantStatus: 400, wantReason: "That is wrong."},
	{name: "forbidden", raw: rawJSON(403, `{"error":{"reason":"Not yours."}}`), wantStatus: 403, wantReason: "Not yours."},
	{name: "rate limited", raw: rawJSON(429, `{"error":{"reason":"Too fast."}}`), wantStatus: 429, wantReason: "Too fast."},
	{name: "broken", raw: rawJSON(500, `{"error":{"reason":"No database."}}`), wantStatus: 500, wantReason: "No database."},
	{name: "gateway's HTML", raw: raw(502, "text/html", "<h1>Bad gateway</h1>"), wantStatus: 502},
	{name: "redirect", raw: "HTTP/1.1 302 Found\r\nLocation: /elsewhere?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n", wantStatus: 302},
	{name: "redirect to no URL", raw: "HTTP/1.1 302 Found\r\nLocation: http://%/?token=SECRET-TOKEN\r\nContent-Length: 0\r\n\r\n"},
	{name: "long reason", raw: rawJSON(500, `{"error":{"reason":"`+strings.Repeat("r", 60000)+`"}}`), wantStatus: 500, wantReason: strings.Repeat("r", 200)},
	{name: "switching protocols", raw: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: SECRET-TOKEN\r\n\r\n", hangs: true, wantReason: "answered 101 Switching Protocols"},
	{name: "hangs", hangs: true, wantReason: "context deadline exceeded"},
	{name: "hangs in the body", raw: rawJSON(200, flowJSON(logoutURL))[:150], hangs: true, wantStatus: 200, wantReason: "context deadline exceeded"},
	{name: "hangs up", wantReason: "Ory closed the connection"},
	{name: "hangs up in the body", raw: rawJSON(200, flowJSON(logoutURL))[:150], wantStatus: 200, wantReason: "Ory's answer broke off"},
	{name: "flow, and then more than 1 MiB", raw: rawJSON(200, flowJSON(logoutURL)+strings.Repeat(" ", maxOryAnswer)), wantStatus: 200},
	{name: "not HTTP", raw: logoutURL},
	{name: "bad header", raw: "HTTP/1.1 200 OK\r\nSECRET-TOKEN\r\n\r\n"},
	{name: "garbage", raw: rawJSON(200, flowJSON(logoutURL)[1:]), wantStatus: 200},
	{name: "not JSON", raw: raw(200, "text/html", flowJSON(logoutURL)), wantStatus: 200},
	{name: "null", raw: rawJSON(200, "null"), wantStatus: 200},
	{name: "empty body", raw: rawJSON(200, ""), wantStatus: 200},
	{name: "no content", raw: "HTTP/1.1 204 No Content\r\n\r\n", wantStatus: 204},
	{name: "no logout_url", raw: rawJSON(200, `{"logout_token":"SECRET-TOKEN"}`), wantStatus: 200},
	{name: "empty logout_url", raw: rawJSON(200, flowJSON("")), wantStatus: 200},
	{name: "relative logout_url", raw: rawJSON(200, flowJSON("/logout?token=SECRET-TOKEN")), wantStatus: 200},
	{name: "logout_url without a host", raw: rawJSON(200, flowJSON("http:///?token=SECRET-TOKEN")), wantStatus: 200},
	{name: "script as logout_url", raw: rawJSON(200, flowJSON("javascript://x/?SECRET-TOKEN")), wantStatus: 200},
	{name: "line break in logout_url", raw: rawJSON(200, flowJSON(logoutURL+`\r\nSet-Cookie: a=b`)), wantStatus: 200},
	{name: "space in logout_url", raw: rawJSON(200, flowJSON(logoutURL+" ")), wantStatus: 200},
}

func raw(status int, contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body)
}

func rawJSON(status int, body string) string { return raw(status, "application/json", body) }

func (n notFlow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, n.raw)
	if n.hangs {
		io.Copy(io.Discard, conn) // until the app gives up
	}
}

func (n notFlow) wantLog(msg string) string {
	reason := cmp.Or(n.wantReason, "no usable answer")
	if strings.Contains(reason, " ") {
		reason = strconv.Quote(reason)
	}
	return fmt.Sprintf("level=ERROR msg=%q status=%d reason=%s", msg, n.wantStatus, reason)
}

// wantTook returns how long the app waits for n, if Ory may take limit.
func (n notFlow) wantTook(limit time.Duration) time.Duration {
	if n.wantReason != context.DeadlineExceeded.Error() {
		return 0
	}
	return limit
}

// spaces is white space without end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// captureLog returns what the app logs until the test ends.
func captureLog(t testing.TB) *syncBuffer {
	log := &syncBuffer{}
	logTo(log)
	t.Cleanup(func() { logTo(os.Stderr) })
	return log
}

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// String returns what was written, without the time of slog's lines.
func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return logTime.ReplaceAllString(b.buf.String(), "")
}

var logTime = regexp.MustCompile(`(?m)^time=\S+ `)

// check checks that want was written, and no secret.
func (b *syncBuffer) check(t *testing.T, want string) {
	t.Helper()
	got := b.String()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got log\n%s\nwant\n%s", got, want)
	}
	if strings.Contains(got, "SECRET") {
		t.Errorf("a secret is logged:\n%s", got)
	}
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
