package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/preload"
	"github.com/chromedp/chromedp"
)

// chromium is driven by chromedp, over the Chrome DevTools Protocol.
type chromium struct{ ctx context.Context }

func startChromium(t *testing.T, dark bool) browser {
	path := lookPath(t, "chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU)
	if dark {
		options = append(options, chromedp.Flag("blink-settings", "preferredColorScheme=0"))
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which does not work for root
	}
	ctx, stop := chromedp.NewExecAllocator(interrupted, options...)
	t.Cleanup(stop)
	ctx, _ = chromedp.NewContext(ctx)
	t.Cleanup(func() { chromedp.Cancel(ctx) }) // waits for its end
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return chromium{ctx}
}

func (c chromium) do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(c.ctx, commandTimeout)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

func (c chromium) eval(js string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, commandTimeout)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](js))
}

func (c chromium) open(url string) error  { return c.do(chromedp.Navigate(url)) }
func (c chromium) back() error            { return c.do(chromedp.NavigateBack()) }
func (c chromium) press(key string) error { return c.do(chromedp.KeyEvent(key)) }

func (c chromium) point(x, y int) error {
	return c.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, float64(x), float64(y)))
}

func (c chromium) click(x, y int, ctrl bool) error {
	modifier := chromedp.ModifierNone
	if ctrl {
		modifier = chromedp.ModifierCtrl
	}
	return c.do(chromedp.MouseClickXY(float64(x), float64(y), chromedp.ButtonModifiers(modifier)))
}

func (c chromium) resize(width, height int) error {
	return c.do(chromedp.EmulateViewport(int64(width), int64(height)))
}

func (c chromium) screenshot() ([]byte, error) {
	return chromedp.Run(c.ctx, chromedp.CaptureScreenshot())
}

func (c chromium) other() (browser, error) {
	targets, err := chromedp.Targets(c.ctx)
	if err != nil {
		return nil, err
	}
	for _, target := range targets {
		if target.Type == "page" && target.TargetID != chromedp.FromContext(c.ctx).Target.TargetID {
			ctx, _ := chromedp.NewContext(c.ctx, chromedp.WithTargetID(target.TargetID)) // ends with c's
			return chromium{ctx}, chromedp.Do(ctx)
		}
	}
	return nil, errNoTab
}

func (c chromium) closeTab() error {
	_, err := chromedp.Call(c.ctx, page.Close, cdp.Empty{})
	return err
}

// preloads returns a func that returns what Chromium has said by then of u's prefetches and prerenders.
func preloads(u *user) (said func() string) {
	u.t.Helper()
	ctx := u.browser.(chromium).ctx
	if _, err := chromedp.Call(ctx, preload.Enable, cdp.Empty{}); err != nil {
		u.t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	add := func(status string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, status)
	}
	if err := chromedp.Listen(ctx, func(event any) {
		switch event := event.(type) {
		case *preload.EventPrefetchStatusUpdated:
			add(string(event.PrefetchStatus))
		case *preload.EventPrerenderStatusUpdated:
			add(string(event.PrerenderStatus))
		}
	}); err != nil {
		u.t.Fatal(err)
	}
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(all, " ")
	}
}
