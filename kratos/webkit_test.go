package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
)

// webKit is WebKitGTK's MiniBrowser on an X server of its own. It speaks WebDriver: https://w3c.github.io/webdriver/
type webKit struct {
	x, driver *program
	url       string
	current   string // the tab that the driver's commands go to
}

func startWebKit(ctx context.Context, dark bool) (browser, error) {
	driver, err := lookPath("WebKitWebDriver")
	if err != nil {
		return nil, err
	}
	xvfb, err := lookPath("Xvfb")
	if err != nil {
		return nil, err
	}
	found, _ := filepath.Glob("/usr/lib*/*/webkit2gtk-4.1/MiniBrowser") // the pattern is good
	binary, err := lookPath(found...)
	if err != nil {
		return nil, err
	}
	port, display := freePort(), freePort()
	w := &webKit{url: fmt.Sprintf("http://127.0.0.1:%d/session", port)}
	if w.x, err = shared.startProgram(ctx, nil, xvfb, fmt.Sprintf(":%d", display), "-screen", "0", "1400x1000x24"); err != nil {
		return nil, err
	}
	if err = poll(func() error {
		_, err := os.Stat(fmt.Sprintf("/tmp/.X11-unix/X%d", display))
		return err
	}); err != nil {
		w.close()
		return nil, err
	}
	theme := map[bool]string{true: "Adwaita:dark", false: "Adwaita"}[dark]
	w.driver, err = shared.startProgram(ctx, []string{
		fmt.Sprintf("DISPLAY=:%d", display), "GTK_THEME=" + theme,
		"WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS=1", // which does not work for root
	}, driver, fmt.Sprintf("--port=%d", port))
	if err == nil {
		err = w.driver.waitFor(ctx, port, "/status")
	}
	if err == nil {
		err = w.newSession(binary)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *webKit) newSession(binary string) error {
	options := map[string]any{"binary": binary, "args": []string{"--automation", "--full-screen"}}
	var created struct{ SessionID string }
	err := w.call("POST", "", map[string]any{"capabilities": map[string]any{
		"alwaysMatch": map[string]any{"webkitgtk:browserOptions": options},
	}}, &created)
	w.url += "/" + created.SessionID
	return err
}

func (w *webKit) close() {
	for _, p := range []*program{w.driver, w.x} {
		if p != nil {
			p.stop()
		}
	}
}

// call sends a command, and decodes the value of its answer.
func (w *webKit) call(method, path string, params, value any) error {
	body, err := json.Marshal(params)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s %s: %s", method, path, answer)
	}
	return json.NewDecoder(resp.Body).Decode(&struct{ Value any }{value})
}

func (w *webKit) newTab() (tab, error) {
	t := &webKitTab{webKit: w}
	err := w.call("GET", "/window", nil, &t.handle)
	w.current = t.handle
	return t, err
}

// webKitTab is a tab of the driver's only session: a new one for each test would take a second or more. So cookies
// stay from test to test.
type webKitTab struct {
	*webKit
	handle string
}

// call sends a command for this tab.
func (t *webKitTab) call(method, path string, params, value any) error {
	if t.current != t.handle {
		if err := t.webKit.call("POST", "/window", map[string]any{"handle": t.handle}, nil); err != nil {
			return err
		}
		t.current = t.handle
	}
	return t.webKit.call(method, path, params, value)
}

func (t *webKitTab) open(url string) error {
	return t.call("POST", "/url", map[string]any{"url": url}, nil)
}

func (t *webKitTab) eval(js string) (value string, err error) {
	err = t.call("POST", "/execute/sync", map[string]any{"script": "return " + js, "args": []any{}}, &value)
	return value, err
}

func (t *webKitTab) act(actions []any) error {
	return t.call("POST", "/actions", map[string]any{"actions": actions}, nil)
}

func (t *webKitTab) point(x, y int) error            { return t.act(pointActions(x, y)) }
func (t *webKitTab) click(x, y int, ctrl bool) error { return t.act(clickActions(x, y, ctrl)) }
func (t *webKitTab) press(keys string) error         { return t.act(keyActions(keys)) }

func (t *webKitTab) back() error { return t.call("POST", "/back", map[string]any{}, nil) }

func (t *webKitTab) resize(width, height int) error {
	return t.call("POST", "/window/rect", map[string]any{"width": width, "height": height}, nil)
}

func (t *webKitTab) screenshot() (png []byte, err error) {
	err = t.call("GET", "/screenshot", nil, &png)
	return png, err
}

func (t *webKitTab) other() (tab, error) {
	var handles []string
	if err := t.call("GET", "/window/handles", nil, &handles); err != nil {
		return nil, err
	}
	for _, handle := range handles {
		if handle != t.handle {
			return &webKitTab{t.webKit, handle}, nil
		}
	}
	return nil, errNoTab
}

// close closes the tabs that this one has opened.
func (t *webKitTab) close() {
	for other, err := t.other(); err == nil; other, err = t.other() {
		other.(*webKitTab).call("DELETE", "/window", nil, nil)
	}
}
