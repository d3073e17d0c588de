package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// firefox speaks WebDriver BiDi: https://w3c.github.io/webdriver-bidi/
type firefox struct {
	*program
	profile string
	conn    *websocket.Conn
	id      int // of the last command
}

func startFirefox(ctx context.Context, dark bool) (browser, error) {
	path, err := lookPath("firefox-esr", "firefox")
	if err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp("", "ory-logout-firefox")
	if err != nil {
		return nil, err
	}
	f := &firefox{profile: profile}
	// 0 is dark, 1 is light.
	prefs := fmt.Sprintf(`user_pref("layout.css.prefers-color-scheme.content-override", %d);`, map[bool]int{true: 0, false: 1}[dark])
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		return nil, err
	}
	port := freePort()
	f.program, err = shared.startProgram(ctx, nil, path, "--headless", "--remote-debugging-port", fmt.Sprint(port), "--profile", profile)
	if err != nil {
		return nil, err
	}
	if err = poll(func() (err error) {
		f.conn, _, err = websocket.Dial(ctx, fmt.Sprintf("ws://127.0.0.1:%d/session", port), nil)
		return err
	}); err == nil {
		f.conn.SetReadLimit(-1) // for screenshots
		err = f.call("session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *firefox) close() {
	if f.conn != nil {
		f.conn.CloseNow()
	}
	f.stop()
	os.RemoveAll(f.profile)
}

// call sends a command, and decodes its result.
func (f *firefox) call(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	f.id++
	if err := wsjson.Write(ctx, f.conn, map[string]any{"id": f.id, "method": method, "params": params}); err != nil {
		return err
	}
	for {
		var answer struct {
			ID             int
			Error, Message string
			Result         json.RawMessage
		}
		if err := wsjson.Read(ctx, f.conn, &answer); err != nil {
			return err
		}
		switch {
		case answer.ID != f.id: // an event, or the late answer to a command given up
		case answer.Error != "":
			return fmt.Errorf("%s: %s: %s", method, answer.Error, answer.Message)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

type firefoxTab struct {
	*firefox
	user    string // context
	context string
}

func (f *firefox) newTab() (tab, error) {
	var user struct{ UserContext string }
	if err := f.call("browser.createUserContext", map[string]any{}, &user); err != nil {
		return nil, err
	}
	var created struct{ Context string }
	err := f.call("browsingContext.create", map[string]any{"type": "tab", "userContext": user.UserContext}, &created)
	return &firefoxTab{f, user.UserContext, created.Context}, err
}

// call sends a command for this tab.
func (t *firefoxTab) call(method string, params map[string]any, result any) error {
	params["context"] = t.context
	return t.firefox.call(method, params, result)
}

func (t *firefoxTab) open(url string) error {
	// Firefox may take a frame that must not be shown for the page's failure, or wait for it for ever. So it is not asked
	// to wait, and what it says of a failure counts only if there is no new page.
	if _, err := t.eval(`window.isOld = "true"`); err != nil {
		return err
	}
	navigated := t.call("browsingContext.navigate", map[string]any{"url": url, "wait": "none"}, nil)
	return poll(func() error {
		old, err := t.eval(`String(window.isOld || document.readyState == "loading")`)
		if err == nil && old != "false" {
			err = cmp.Or(navigated, errors.New("the page before is still there"))
		}
		return err
	})
}

func (t *firefoxTab) eval(js string) (string, error) {
	var result struct {
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := t.firefox.call("script.evaluate", map[string]any{
		"target": map[string]any{"context": t.context}, "expression": js, "awaitPromise": false,
	}, &result)
	if text := result.ExceptionDetails.Text; text != "" {
		return "", fmt.Errorf("%s: %s", js, text)
	}
	return result.Result.Value, err
}

func (t *firefoxTab) act(actions []any) error {
	return t.call("input.performActions", map[string]any{"actions": actions}, nil)
}

func (t *firefoxTab) point(x, y int) error            { return t.act(pointActions(x, y)) }
func (t *firefoxTab) click(x, y int, ctrl bool) error { return t.act(clickActions(x, y, ctrl)) }
func (t *firefoxTab) press(keys string) error         { return t.act(keyActions(keys)) }

func (t *firefoxTab) back() error {
	return t.call("browsingContext.traverseHistory", map[string]any{"delta": -1}, nil)
}

func (t *firefoxTab) resize(width, height int) error {
	return t.call("browsingContext.setViewport", map[string]any{"viewport": map[string]any{"width": width, "height": height}}, nil)
}

func (t *firefoxTab) screenshot() ([]byte, error) {
	var result struct{ Data []byte }
	err := t.call("browsingContext.captureScreenshot", map[string]any{}, &result)
	return result.Data, err
}

func (t *firefoxTab) other() (tab, error) {
	var tree struct {
		Contexts []struct{ Context, UserContext string }
	}
	if err := t.firefox.call("browsingContext.getTree", map[string]any{}, &tree); err != nil {
		return nil, err
	}
	for _, c := range tree.Contexts {
		if c.UserContext == t.user && c.Context != t.context {
			return &firefoxTab{t.firefox, t.user, c.Context}, nil
		}
	}
	return nil, errNoTab
}

// close closes all of the user's tabs.
func (t *firefoxTab) close() {
	t.firefox.call("browser.removeUserContext", map[string]any{"userContext": t.user}, nil)
}
