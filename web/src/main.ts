import { mount } from "svelte";
import App from "./app/App.svelte";
import { router } from "./app/router.svelte";
import { session } from "./app/session.svelte";
import "./styles/tokens.css";
import "./styles/base.css";

const target = document.getElementById("app");
if (target === null) throw new Error("index.html has no element with the id app");

router.start();
void session.start();
mount(App, { target });
