package main

import (
	"cmp"
	"context"
	"encoding/json"
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
	*bidi
	context string
}

type bidi struct {
	*websocket.Conn
	id int // of the last command
}

func startFirefox(t *testing.T, dark bool) browser {
	path := lookPath(t, "firefox-esr", "firefox-esr", "firefox")
	profile, err := os.MkdirTemp("", "ory-logout-firefox")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })
	// 0 is dark, 1 is light.
	prefs := fmt.Sprintf(`user_pref("layout.css.prefers-color-scheme.content-override", %d);`, map[bool]int{true: 0, false: 1}[dark])
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePort()
	startProgram(t, nil, path, "--headless", "--remote-debugging-port", fmt.Sprint(port), "--profile", profile)
	b := &bidi{}
	retry(t, "Firefox", func() (err error) {
		b.Conn, _, err = websocket.Dial(t.Context(), fmt.Sprintf("ws://127.0.0.1:%d/session", port), nil)
		return err
	})
	t.Cleanup(func() { b.CloseNow() })
	b.SetReadLimit(-1) // for screenshots
	err = b.call("session.new", params{"capabilities": params{}}, nil)
	tabs, err2 := b.tabs()
	if err = cmp.Or(err, err2); err != nil {
		t.Fatal(err)
	}
	return b.tab(tabs[0])
}

// call sends a command, and decodes its result.
func (b *bidi) call(method string, p params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	b.id++
	if err := wsjson.Write(ctx, b.Conn, params{"id": b.id, "method": method, "params": p}); err != nil {
		return err
	}
	for {
		var answer struct {
			ID             int
			Error, Message string
			Result         json.RawMessage
		}
		if err := wsjson.Read(ctx, b.Conn, &answer); err != nil {
			return err
		}
		switch {
		case answer.ID != b.id: // an event, or the late answer to a command given up
		case answer.Error != "":
			return fmt.Errorf("%s: %s: %s", method, answer.Error, answer.Message)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

// tabs returns the contexts of all tabs.
func (b *bidi) tabs() (contexts []string, err error) {
	var tree struct{ Contexts []struct{ Context string } }
	err = b.call("browsingContext.getTree", params{}, &tree)
	for _, c := range tree.Contexts {
		contexts = append(contexts, c.Context)
	}
	return contexts, err
}

func (b *bidi) tab(context string) firefox {
	return firefox{func(actions []any) error {
		return b.call("input.performActions", params{"context": context, "actions": actions}, nil)
	}, b, context}
}

func (f firefox) open(url string) error {
	// Firefox may take a frame that must not be shown for the page's failure, or wait for it for ever. So it is not asked
	// to wait, and what it says of a failure counts only if there is no new page.
	if _, err := f.eval(`window.isOld = "true"`); err != nil {
		return err
	}
	navigated := f.call("browsingContext.navigate", params{"context": f.context, "url": url, "wait": "none"}, nil)
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
	err := f.call("script.evaluate", params{"target": params{"context": f.context}, "expression": js, "awaitPromise": false}, &result)
	if text := result.ExceptionDetails.Text; text != "" {
		return "", fmt.Errorf("%s: %s", js, text)
	}
	return result.Result.Value, err
}

func (f firefox) back() error {
	return f.call("browsingContext.traverseHistory", params{"context": f.context, "delta": -1}, nil)
}

func (f firefox) resize(width, height int) error {
	return f.call("browsingContext.setViewport", params{"context": f.context, "viewport": params{"width": width, "height": height}}, nil)
}

func (f firefox) screenshot() ([]byte, error) {
	var result struct{ Data []byte }
	err := f.call("browsingContext.captureScreenshot", params{"context": f.context}, &result)
	return result.Data, err
}

func (f firefox) other() (browser, error) {
	tabs, err := f.tabs()
	if err != nil {
		return nil, err
	}
	for _, context := range tabs {
		if context != f.context {
			return f.tab(context), nil
		}
	}
	return nil, errNoTab
}

func (f firefox) closeTab() error {
	return f.call("browsingContext.close", params{"context": f.context}, nil)
}
