package demo

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
)

// signInPage shows the form of a login flow, and Kratos's messages about what was typed.
// https://www.ory.com/docs/kratos/concepts/ui-user-interface
var signInPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>Sign in</title>
<style>
	body { max-width: 30rem; margin: 15vh auto; padding: 0 1rem; font: 1.125rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
	h1 { font-size: 1.75rem; line-height: 1.2 }
	label { display: block; margin: 1rem 0 }
	input { display: block; box-sizing: border-box; width: 100%; margin-top: .25rem; padding: .6rem .8rem; border: 1px solid #808080; border-radius: .5rem; font: inherit }
	button { padding: .6rem 1.5rem; border: 0; border-radius: .5rem; background: #4338ca; color: #fff; font: inherit; cursor: pointer }
	:focus-visible { outline: 3px solid #818cf8; outline-offset: 3px }
	[role=alert] { padding: .6rem 1rem; border: 1px solid #dc2626; border-left-width: .5rem; border-radius: .5rem }
</style>
<h1>Sign in</h1>
{{define "messages"}}{{range .}}<p role="alert">{{.Text}}</p>
{{end}}{{end}}{{template "messages" .Messages}}{{with .Nodes}}<p>The demo's user is ` + Email + `, the password ` + Password + `.
<form action="{{$.Action}}" method="{{$.Method}}">
{{range .}}{{$label := .Meta.Label.Text}}{{with .Attributes -}}
{{if eq .Type "hidden"}}<input type="hidden" name="{{.Name}}" value="{{.Value}}">
{{else if eq .Type "submit"}}<button name="{{.Name}}" value="{{.Value}}">{{$label}}</button>
{{else}}<label>{{$label}} <input type="{{.Type}}" name="{{.Name}}" value="{{.Value}}" autocomplete="{{.Autocomplete}}" {{if .Required}}required{{end}}></label>
{{end}}{{end}}{{template "messages" .Messages}}{{end}}</form>
{{end}}`))

// loginFlow has those fields that the page shows of https://www.ory.com/docs/reference/api#operation/getLoginFlow.
type loginFlow struct{ UI loginForm }

type loginForm struct {
	Action, Method string
	Messages       []message
	Nodes          []struct {
		Attributes struct {
			Name, Type, Value, Autocomplete string
			Required                        bool
		}
		Meta     struct{ Label message }
		Messages []message
	}
}

type message struct{ Text string }

// signInHandler answers with signInPage for the login flow that the query parameter flow names.
func (s *Stack) signInHandler(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	fail := func(status int, text string) {
		w.WriteHeader(status)
		signInPage.Execute(w, loginForm{Messages: []message{{text}}})
	}
	kratosURL := fmt.Sprintf("http://localhost:%d/self-service/login/", s.KratosPort)
	// An error would be one of the method or the URL, and they are right.
	req, _ := http.NewRequestWithContext(r.Context(), "GET", kratosURL+"flows?id="+url.QueryEscape(r.FormValue("flow")), nil)
	req.Header["Cookie"] = r.Header["Cookie"]
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fail(http.StatusBadGateway, err.Error())
		return
	}
	defer resp.Body.Close()

	var flow loginFlow
	switch resp.StatusCode {
	case http.StatusOK:
		if err := json.NewDecoder(resp.Body).Decode(&flow); err != nil {
			fail(http.StatusBadGateway, err.Error())
			return
		}
		signInPage.Execute(w, flow.UI)
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusGone:
		// There is no such flow, or it has expired, or it belongs to another browser, or the user has signed in by it. A new
		// one mends that, but not in a browser without cookies: to Kratos, each of its flows belongs to another browser.
		if resp.StatusCode == http.StatusForbidden && r.Header["Cookie"] == nil {
			fail(http.StatusForbidden, fmt.Sprintf("Sign-in needs cookies: allow them, and start again at http://localhost:%d", s.AppPort))
			return
		}
		http.Redirect(w, r, kratosURL+"browser", http.StatusSeeOther)
	default:
		fail(http.StatusBadGateway, "Kratos answered "+resp.Status)
	}
}
