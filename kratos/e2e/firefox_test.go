package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// firefox is a tab of a Firefox, which speaks WebDriver BiDi: https://w3c.github.io/webdriver-bidi/
type firefox struct {
	webDriverInput
	conn  *websocket.Conn
	tabID string // or context, as BiDi calls it
}

func startFirefox(t *testing.T, colors string) browser {
	path := lookPath(t, "firefox-esr", "firefox-esr", "firefox")
	// Not t.TempDir, which fails the test if it cannot remove all: processes of Firefox's may still write there.
	profile, err := os.MkdirTemp("", "ory-logout-firefox")
	if err != nil {
		t.Fatal(err)
	}
	override := "1" // which is light
	if colors == "dark" {
		override = "0"
	}
	prefs := `user_pref("layout.css.prefers-color-scheme.content-override", ` + override + `);`
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort()
	startProgram(t, nil, path, "--headless", "--remote-debugging-port", fmt.Sprint(port), "--profile", profile)
	var f firefox
	retry(t, "Firefox", func() (err error) {
		f.conn, _, err = websocket.Dial(interrupted, fmt.Sprintf("ws://127.0.0.1:%d/session", port), nil)
		return err
	})
	t.Cleanup(func() { f.conn.CloseNow() })
	f.conn.SetReadLimit(-1) // for screenshots
	capabilities := params{"alwaysMatch": params{"acceptInsecureCerts": true}}
	if err := f.call("session.new", params{"capabilities": capabilities}, nil); err != nil {
		t.Fatal(err)
	}
	first, err := f.other()
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// call sends a command for this tab, and decodes its result.
func (f firefox) call(method string, p params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout) // its end closes f.conn
	defer cancel()
	p["context"] = f.tabID
	if err := wsjson.Write(ctx, f.conn, params{"id": 0, "method": method, "params": p}); err != nil {
		return err
	}
	// The next message is the answer, as no events are subscribed to.
	var answer struct {
		Error, Message string
		Result         any
	}
	answer.Result = result
	if err := wsjson.Read(ctx, f.conn, &answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s: %s", method, answer.Error, answer.Message)
	}
	return nil
}

func (f firefox) open(url string) error {
	// Firefox may take a frame that must not be shown for the page's failure, or wait for it for ever. So it is not asked
	// to wait, and what it says of a failure counts only if there is no new page.
	if _, err := f.eval(`window.isOld = "true"`); err != nil {
		return err
	}
	navigated := f.call("browsingContext.navigate", params{"url": url, "wait": "none"}, nil)
	return poll(func() error {
		old, err := f.eval(`String(window.isOld || document.readyState == "loading")`)
		if err == nil && old != "false" {
			err = cmp.Or(navigated, errors.New("the page before is still there"))
		}
		return err
	})
}

func (f firefox) eval(js string) (string, error) {
	var result struct {
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := f.call("script.evaluate", params{"target": params{"context": f.tabID}, "expression": js, "awaitPromise": false}, &result)
	if text := result.ExceptionDetails.Text; text != "" {
		return "", fmt.Errorf("%s: %s", js, text)
	}
	return result.Result.Value, err
}

func (f firefox) back() error {
	return f.call("browsingContext.traverseHistory", params{"delta": -1}, nil)
}

func (f firefox) reload() error {
	return f.call("browsingContext.reload", params{"wait": "none"}, nil)
}

func (f firefox) resize(width, height int) error {
	return f.call("browsingContext.setViewport", params{"viewport": params{"width": width, "height": height}}, nil)
}

func (f firefox) screenshot() ([]byte, error) {
	var result struct{ Data []byte }
	err := f.call("browsingContext.captureScreenshot", params{}, &result)
	return result.Data, err
}

func (f firefox) other() (browser, error) {
	var tree struct{ Contexts []struct{ Context string } }
	if err := f.call("browsingContext.getTree", params{}, &tree); err != nil {
		return nil, err
	}
	for _, tab := range tree.Contexts {
		if tab.Context != f.tabID {
			other := firefox{conn: f.conn, tabID: tab.Context}
			other.webDriverInput = func(actions []any) error { return other.call("input.performActions", params{"actions": actions}, nil) }
			return other, nil
		}
	}
	return nil, errNoTab
}

func (f firefox) closeTab() error { return f.call("browsingContext.close", params{}, nil) }
