"use strict";
// The description names its server as ".", which is this page's parent: requests go to the server that served the page.
fetch("../openapi.json")
  .then((answer) => answer.json())
  .then((spec) => {
    spec.servers = [{ url: new URL("..", window.location.href).href.replace(/\/$/, "") }];
    window.ui = SwaggerUIBundle({ spec, dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true });
  });
