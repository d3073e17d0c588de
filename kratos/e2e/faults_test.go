package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ory-logout/kratos/demo"
)

// click clicks Logout, and returns where that leads.
func (c *client) click(t *testing.T) (location string) {
	t.Helper()
	noRedirects := http.Client{Jar: c.Jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	start := time.Now()
	resp, err := noRedirects.Get(fmt.Sprintf("http://localhost:%d/logout", c.s.AppPort))
	if err != nil {
		t.Error(err)
		return "/"
	}
	resp.Body.Close()
	if got, limit := time.Since(start), 5*time.Second; got > limit {
		t.Errorf("got an answer after %v, want at most %v", got, limit)
	}
	if got, want := resp.StatusCode, http.StatusSeeOther; got != want {
		t.Errorf("got status %d, want %d", got, want)
	}
	return resp.Header.Get("Location")
}

// Kratos is killed and started again while users click Logout all the time.
func TestKratosFaults(t *testing.T) {
	const users, kills, clicks = 32, 3, 20
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := newStack(dir)
	s.Log = log
	defer s.Stop()
	if err := startWithDatabase(interrupted, s); err != nil {
		t.Fatal(err)
	}
	if err := s.StartApp(interrupted, s.AppPort); err != nil {
		t.Fatal(err)
	}

	var ended, failed atomic.Int64 // clicks that ended a session, and clicks that led to /
	var secrets sync.Map
	var writes sync.Mutex // SQLite has no more than one writer at a time
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(interrupted)
	defer stop()
	for range users {
		wg.Go(func() {
			c := newClient(s)
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
				if c.session() == "" {
					writes.Lock()
					c.signIn(demo.Password) // or in the next round, when Kratos is back
					writes.Unlock()
					continue
				}
				session := c.session()
				secrets.Store(session, nil)
				location := c.click(t)
				if location == "/" {
					failed.Add(1)
					continue
				}
				secrets.Store(location, nil)
				if rand.IntN(25) > 0 {
					continue // an impatient user: the browser follows the last click
				}
				retry(t, "Kratos", func() error {
					writes.Lock()
					defer writes.Unlock()
					_, _, err := c.get(location)
					return err
				})
				retry(t, "Kratos", func() error {
					got, err := whoami(s, session)
					if err == nil && got != 401 {
						t.Errorf("whoami after a logout: got %d, want 401", got)
					}
					return err
				})
				ended.Add(1)
			}
		})
	}
	for range kills {
		before := ended.Load()
		waitFor(t, "logouts", func() bool { return ended.Load() >= before+clicks })
		witness := newClient(s)
		waitFor(t, "a session", func() bool {
			witness.signIn(demo.Password)
			return witness.session() != ""
		})

		s.Kratos.Process.Kill()
		<-s.Kratos.Ended
		before = failed.Load()
		waitFor(t, "failed logouts", func() bool { return failed.Load() >= before+clicks })
		if page, landed, err := witness.get(fmt.Sprintf("http://localhost:%d/logout", s.AppPort)); err != nil {
			t.Error(err)
		} else if !strings.HasSuffix(landed, "/") || !strings.Contains(page, unknown) {
			t.Errorf("without Kratos, landed on %s, want /, and the page to say that it %s:\n%s", landed, unknown, page)
		}
		if err := s.StartKratos(interrupted); err != nil {
			t.Fatal(err)
		}
		session := witness.session()
		writes.Lock()
		_, _, err := witness.get(fmt.Sprintf("http://localhost:%d/logout", s.AppPort))
		writes.Unlock()
		if err != nil {
			t.Error(err)
		}
		checkWhoami(t, s, session, 401)
	}
	stop()
	wg.Wait()
	t.Logf("%d logouts, %d clicks without Kratos", ended.Load(), failed.Load())

	logged, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(logged, []byte("logout failed")) {
		t.Error("no failed logout is logged")
	}
	secrets.Range(func(secret, _ any) bool {
		_, value, _ := strings.Cut(secret.(string), "=") // of the cookie, or of the logout URL's token
		if bytes.Contains(logged, []byte(value)) {
			t.Error("a session cookie or a logout token is logged")
		}
		return true
	})
}
